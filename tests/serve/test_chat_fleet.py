"""The fleet with made-up engines: who waits, who is told what, and what follows a death."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.engine import EngineSpec
from rollout.live import SamplingExtras
from serve_app.chat import fleet as fleet_module
from serve_app.chat.fleet import ChatFleet
from serve_app.chat.placement import ModelGoneError, Place
from serve_app.chat.types import ChatModel, ChatRequest, Chunk, Failure, Item


class Engines:
    """Makes engines and remembers them; says how they behave."""

    def __init__(self) -> None:
        self.all: list[FakeEngine] = []
        self.startable = asyncio.Event()
        self.startable.set()
        self.fails_to_load: set[str] = set()

    def launch(self, spec: EngineSpec) -> "FakeEngine":
        engine = FakeEngine(self, spec)
        self.all.append(engine)
        return engine


class FakeEngine:
    """Answers each request with two chunks, the second one when it is let go."""

    def __init__(self, engines: Engines, spec: EngineSpec) -> None:
        self.engines, self.spec = engines, spec
        self.folder, self.version = spec.model, 0
        self.log: list[str] = []
        self.dead, self.stopped = False, False
        self.go = asyncio.Event()
        self.go.set()
        self.given_up: list[str] = []

    async def start(self, version: int) -> None:
        await self.engines.startable.wait()
        await self.load(self.spec.model, version)

    async def load(self, folder: str, version: int) -> float:
        if folder in self.engines.fails_to_load:
            raise OSError(f"{folder} is damaged")
        self.folder, self.version = folder, version
        self.log.append(f"load {folder}")
        return 0.1

    async def run(self, request: ChatRequest, folder: str, version: int) -> AsyncGenerator[Item]:
        assert (folder, version) == (self.folder, self.version), "not the weights that it holds"
        self.log.append(f"run {request.id}")
        ended = False
        try:
            await self.alive()
            if request.stream:
                yield [Chunk(0, content="a")]
            await self.go.wait()
            await self.alive()
            yield [Chunk(0, content="b", finish_reason="stop")]
            ended = True
        finally:
            if not ended:
                self.given_up.append(request.id)

    async def alive(self) -> None:
        await asyncio.sleep(0)
        if self.dead:
            raise ConnectionError("killed")

    async def ping(self) -> None:
        await self.alive()

    async def stop(self) -> None:
        self.stopped = True


def locate(model: ChatModel) -> Place:
    """ "name" is of architecture e, "f:name" of architecture f; "gone" has no files."""
    if model.name == "gone":
        raise ModelGoneError("The model 'gone' has no files any more")
    engine, _, name = model.name.rpartition(":")
    return Place(Path(name), name, EngineSpec(model=name), engine or "e")


def request(name: str, number: int = 0, *, stream: bool = False) -> ChatRequest:
    model = ChatModel(name, name)
    return ChatRequest(f"{name}{number}", model, ("x",), 1, 0.0, None, SamplingExtras(), (), stream)


async def ask(fleet: ChatFleet, asked: ChatRequest) -> list[Item]:
    return [item async for item in fleet.stream(asked)]


async def text(fleet: ChatFleet, asked: ChatRequest) -> str:
    items = await ask(fleet, asked)
    assert not isinstance(items[-1], Failure), items
    return "".join(chunk.content for item in items for chunk in item if isinstance(item, list))


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come to that")


def scenario(
    test: Callable[[ChatFleet, Engines], Coroutine[Any, Any, None]], **options: Any
) -> None:
    """Run a test on a loop of its own and stop what it started."""

    async def run() -> None:
        engines = Engines()
        settings = {"max_engines": 1, "idle_s": 100.0, "hold_s": 5.0} | options
        fleet = ChatFleet(engines.launch, locate, **settings)
        try:
            await test(fleet, engines)
        finally:
            await fleet.close()
        assert all(engine.stopped for engine in engines.all)

    asyncio.run(run())


def test_models_of_one_architecture_share_an_engine_and_each_is_asked_with_its_own_weights():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        names = ["a", "b", "a", "b"]
        assert [await text(fleet, request(n, i)) for i, n in enumerate(names)] == ["b"] * 4
        (engine,) = engines.all
        loads = [line for line in engine.log if line.startswith("load")]
        assert loads == ["load a", "load b", "load a", "load b"]

    scenario(test)


def test_requests_of_two_models_at_once_are_all_answered():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        asked = [request("ab"[i % 2], i) for i in range(20)]
        assert await asyncio.gather(*(text(fleet, r) for r in asked)) == ["b"] * 20
        assert len(engines.all) == 1

    scenario(test)


def test_a_request_waits_for_a_starting_engine_and_is_then_asked_to_come_back():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        engines.startable.clear()
        (failure,) = await ask(fleet, request("a"))
        assert isinstance(failure, Failure)
        assert (failure.status, failure.code) == (503, "model_loading")
        assert failure.retry_after_s is not None
        engines.startable.set()
        assert await text(fleet, request("a", 1)) == "b"
        assert len(engines.all) == 1, "the engine that was being started answers the second try"

    scenario(test, hold_s=0.05)


def test_an_engine_that_dies_before_anything_was_sent_costs_nobody_an_answer():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        await text(fleet, request("a"))
        first = engines.all[0]
        first.go.clear()
        running = [asyncio.create_task(text(fleet, request("a", i))) for i in range(1, 4)]
        await until(lambda: len(first.log) == 5)
        first.dead = True
        first.go.set()
        assert await asyncio.gather(*running) == ["b"] * 3
        assert len(engines.all) == 2
        assert first.stopped

    scenario(test)


def test_a_stream_that_an_engines_death_interrupts_ends_in_a_failure_that_says_so():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        await text(fleet, request("a"))
        first = engines.all[0]
        first.go.clear()
        running = asyncio.create_task(ask(fleet, request("a", 1, stream=True)))
        await until(lambda: len(first.log) == 3)
        await asyncio.sleep(0.01)
        first.dead = True
        first.go.set()
        *sent, failure = await running
        assert len(sent) == 1
        assert isinstance(failure, Failure)
        assert (failure.status, failure.code) == (503, "engine_lost")
        assert await text(fleet, request("a", 2)) == "b"

    scenario(test)


def test_an_engine_that_died_unused_is_found_out_and_replaced(monkeypatch):
    monkeypatch.setattr(fleet_module, "TICK_S", 0.01)

    async def test(fleet: ChatFleet, engines: Engines) -> None:
        await text(fleet, request("a"))
        engines.all[0].dead = True
        await until(lambda: fleet.health()["engines"][0]["state"] == "empty")
        assert await text(fleet, request("a", 1)) == "b"

    scenario(test)


def test_an_idle_engine_is_stopped(monkeypatch):
    monkeypatch.setattr(fleet_module, "TICK_S", 0.01)

    async def test(fleet: ChatFleet, engines: Engines) -> None:
        await text(fleet, request("a"))
        await until(lambda: engines.all[0].stopped)

    scenario(test, idle_s=0.05)


def test_weights_that_cannot_be_loaded_cost_only_their_own_requests():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        engines.fails_to_load.add("bad")
        await text(fleet, request("a"))
        results = await asyncio.gather(
            *(ask(fleet, request(name, i)) for i, name in enumerate(["bad", "a", "bad", "a"], 1))
        )
        for index in (0, 2):
            (failure,) = results[index]
            assert isinstance(failure, Failure)
            assert (failure.status, failure.code) == (503, "engine_failed")
        for index in (1, 3):
            assert not isinstance(results[index][-1], Failure)

    scenario(test)


def test_a_model_without_files_is_not_found():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        (failure,) = await ask(fleet, request("gone"))
        assert isinstance(failure, Failure)
        assert (failure.status, failure.code) == (404, "model_not_found")
        assert engines.all == []

    scenario(test)


def test_above_its_bound_the_queue_turns_requests_away_at_once():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        engines.startable.clear()
        waiting = [asyncio.create_task(ask(fleet, request("a", i))) for i in range(3)]
        await until(lambda: fleet.health()["waiting"] == 3)
        (failure,) = await ask(fleet, request("a", 3))
        assert isinstance(failure, Failure)
        assert (failure.status, failure.code) == (503, "engine_overloaded")
        engines.startable.set()
        assert all(not isinstance(items[-1], Failure) for items in await asyncio.gather(*waiting))

    scenario(test, max_waiting=3)


def test_a_client_that_leaves_frees_its_place_in_the_engine_and_in_the_queue():
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        await text(fleet, request("a"))
        engine = engines.all[0]
        engine.go.clear()
        stream = fleet.stream(request("a", 1, stream=True))
        await anext(stream)
        waiting = asyncio.create_task(ask(fleet, request("b", 2)))
        await until(lambda: fleet.health()["waiting"] == 1)
        waiting.cancel()
        await until(lambda: fleet.health()["waiting"] == 0)
        await stream.aclose()
        assert engine.given_up == ["a1"]
        assert fleet.health()["engines"][0]["running"] == 0

    scenario(test)


@pytest.mark.parametrize("max_engines", [1, 2])
def test_architectures_take_turns_on_the_engines_that_there_are(max_engines):
    async def test(fleet: ChatFleet, engines: Engines) -> None:
        for number in range(4):
            for name in ("a", "f:b"):
                assert await text(fleet, replace(request(name), id=f"{name}{number}")) == "b"
        assert len(engines.all) == (2 if max_engines == 2 else 8)
        assert sum(not engine.stopped for engine in engines.all) == max_engines

    scenario(test, max_engines=max_engines)
