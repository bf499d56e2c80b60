"""The chat deployment on a real Ray: swaps, deaths and streams across processes."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import MODEL, free_port
from ray import serve

from rollout.live import SamplingExtras
from rollout.types import SamplingSpec
from serve.chat_models import heldout, other_architecture, perturbed
from serve_app.chat.types import ChatModel, ChatRequest, Chunk, Failure, Item
from serve_app.ids import new_id
from serve_app.serving import DEPLOYMENT, RayChatLink, chat_application
from serve_app.settings import Settings

PATIENCE_S = 240
APP = "chat"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, ChatModel]:
    """Two trained models that share an architecture, and one of another."""
    root = tmp_path_factory.mktemp("models")
    sampling = SamplingSpec("stepwise", max_tokens=24, max_turns=8, temperature=0.0)
    folders = {"one": MODEL, "two": perturbed(root / "two", 3)}
    found = {
        name: ChatModel(
            name, str(path), trained=True, sampling=sampling, max_model_len=256, dtype="float32"
        )
        for name, path in folders.items()
    }
    return found | {"other": ChatModel("other", str(other_architecture(root / "other")))}


@pytest.fixture(scope="module")
def link(tmp_path_factory) -> Iterator[RayChatLink]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": free_port(), "location": "NoServer"})
    settings = Settings(data=tmp_path_factory.mktemp("data"), max_chat_engines=1)
    handle = serve.run(chat_application(settings), name=APP, route_prefix=None)
    yield RayChatLink(handle)
    serve.shutdown()
    ray.shutdown()


def request(model: ChatModel, row: dict, *, stream: bool = False, n: int = 1) -> ChatRequest:
    prompts = (tuple(row["messages"]),)
    return ChatRequest(new_id("r-"), model, prompts, n, 0.0, None, SamplingExtras(), (), stream)


async def answer(link: RayChatLink, asked: ChatRequest) -> list[Item]:
    """Every item; a request that is to come back does, as the stock clients do."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        items = [item async for item in link.stream(asked)]
        last = items[-1]
        if not isinstance(last, Failure) or last.status != 503 or time.monotonic() > deadline:
            return items
        await asyncio.sleep(last.retry_after_s or 1)


def text(items: list[Item]) -> str:
    assert not isinstance(items[-1], Failure), items[-1]
    chunks: list[Chunk] = [chunk for item in items for chunk in item if isinstance(item, list)]
    return "".join(chunk.content for chunk in chunks)


def ask(link: RayChatLink, *asked: ChatRequest) -> list[str]:
    async def run() -> list[str]:
        return [text(i) for i in await asyncio.gather(*(answer(link, r) for r in asked))]

    return asyncio.run(run())


def engine_pids() -> list[int]:
    """Processes of engine actors, as Ray's worker processes name themselves."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")[0]
            environment = (process / "environ").read_bytes()
            if command.startswith(b"ray::EngineActor") and ray_folder() in environment:
                found.append(int(process.name))
    return found


def ray_folder() -> bytes:
    return f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}".encode()


def test_models_of_one_architecture_share_an_engine_and_another_replaces_it(link, models):
    rows = heldout(3)
    alone = {name: ask(link, *(request(models[name], r) for r in rows)) for name in ("one", "two")}
    assert alone["one"] != alone["two"]
    (shared,) = engine_pids()
    mixed = [request(models[name], row) for row in rows for name in ("one", "two")]
    assert ask(link, *mixed) == [alone[name][i] for i in range(3) for name in ("one", "two")]
    assert engine_pids() == [shared]
    ask(link, request(models["other"], rows[0]))
    assert shared not in engine_pids()
    assert ask(link, request(models["two"], rows[0])) == alone["two"][:1]


def test_a_stream_arrives_in_pieces_that_make_the_whole_answer(link, models):
    row = heldout(1)[0]
    items = asyncio.run(answer(link, request(models["one"], row, stream=True)))
    assert len(items) > 1
    assert [text(items)] == ask(link, request(models["one"], row))


def test_an_engine_killed_under_whole_answers_is_replaced_and_they_are_given(link, models):
    rows = heldout(16)
    alone = ask(link, *(request(models["one"], row, n=4) for row in rows))
    (before,) = engine_pids()

    async def run() -> list[str]:
        asked = [asyncio.create_task(answer(link, request(models["one"], r, n=4))) for r in rows]
        await asyncio.sleep(0.2)
        os.kill(before, signal.SIGKILL)
        return [text(items) for items in await asyncio.gather(*asked)]

    assert asyncio.run(run()) == alone
    (after,) = engine_pids()
    assert after != before


def test_an_engine_killed_under_a_stream_ends_it_with_a_failure_that_can_be_retried(link, models):
    row = heldout(1)[0]
    ask(link, request(models["one"], row))
    (before,) = engine_pids()

    async def run() -> list[Item]:
        items: list[Item] = []
        async for item in link.stream(request(models["one"], row, stream=True, n=16)):
            if not items:
                os.kill(before, signal.SIGKILL)
            items.append(item)
        return items

    items = asyncio.run(run())
    failure = items[-1]
    assert isinstance(failure, Failure)
    assert (failure.status, failure.code) == (503, "engine_lost")
    assert failure.retry_after_s is not None
    assert ask(link, request(models["one"], row)) != [""]


def test_a_replica_killed_under_a_request_is_a_503_and_takes_its_engines_with_it(link, models):
    row = heldout(1)[0]
    ask(link, request(models["one"], row))
    (engine,) = engine_pids()
    replicas = [
        actor
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if DEPLOYMENT in actor["name"]
    ]
    (replica,) = replicas
    handle: Any = ray.get_actor(replica["name"], namespace=replica["namespace"])

    async def run() -> list[Item]:
        items: list[Item] = []
        async for item in link.stream(request(models["one"], row, stream=True, n=16)):
            if not items:
                ray.kill(handle, no_restart=False)
            items.append(item)
        return items

    failure = asyncio.run(run())[-1]
    assert isinstance(failure, Failure)
    assert (failure.status, failure.code) == (503, "engine_lost")
    assert ask(link, request(models["one"], row)) != [""]
    assert engine not in engine_pids()
    assert link.health()["ok"]
