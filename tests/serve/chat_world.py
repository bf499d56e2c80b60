"""What the chat tests share: a service with a real engine, and its models."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import MODEL

from rollout.types import Problem, Rollout, SamplingSpec
from serve.chat_models import heldout
from serve_app.chat.fleet import ChatFleet
from serve_app.chat.host import EngineHost
from serve_app.chat.placement import Locator
from serve_app.chat.types import ChatRequest, Item


class HostedEngine(EngineHost):
    """An engine of this process as the fleet's link."""

    async def stop(self) -> None:
        await self.close()

    async def ping(self) -> None:
        """It cannot die alone."""


class LocalChatLink:
    """A fleet on an event loop of its own thread, for clients on any loop."""

    def __init__(self) -> None:
        self.hosts: list[HostedEngine] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        locator = Locator(num_threads=2, on_gpu=False)
        self.fleet = ChatFleet(
            self._launch, locator.locate, max_engines=1, idle_s=1e9, hold_s=300.0
        )

    def _launch(self, spec: Any) -> HostedEngine:
        self.hosts.append(HostedEngine(spec))
        return self.hosts[-1]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Item]:
        items = self.fleet.stream(request)
        try:
            while (item := await self.call(anext(items, None))) is not None:
                yield item
        finally:
            await self.call(items.aclose())

    async def call(self, work: Any) -> Any:
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Any) -> Any:
        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def health(self) -> dict[str, Any]:
        return {"ok": True, "detail": "local"}

    def close(self) -> None:
        self.submit(self.fleet.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class World:
    """A service with a real engine, a client of it, and its models by nickname."""

    client: Any
    link: LocalChatLink
    service: Any
    project_id: str
    names: dict[str, str]
    folders: dict[str, Path]

    def ask(self, model: str, row: dict, **fields: Any) -> dict:
        """A whole answer, greedy unless told otherwise."""
        body = {"model": model, "messages": row["messages"], "temperature": 0} | fields
        response = self.client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def ask_all(self, model: str, rows: list[dict], **fields: Any) -> list[dict]:
        """Whole answers, asked for at once."""
        with ThreadPoolExecutor(16) as threads:
            return list(threads.map(lambda row: self.ask(model, row, **fields), rows))

    def refused(self, path: str = "/v1/chat/completions", **fields: Any) -> tuple[int, dict]:
        """(status, error) of a call that must fail."""
        body = {"model": "ferrata-tiny", "messages": [{"role": "user", "content": "a"}]} | fields
        response = self.client.post(path, json={k: v for k, v in body.items() if v is not ...})
        return response.status_code, response.json()["error"]

    def generate(
        self, nickname: str, problems: list[Problem], sampling: SamplingSpec
    ) -> list[Rollout]:
        """What the engine's own `generate` samples with a model's weights."""
        host = self.link.hosts[-1]
        engine = host._started()

        def work() -> list[Rollout]:
            held = engine.policy_version
            engine.load_folder(self.folders[nickname], -1)
            groups = engine.generate(problems, 1, sampling, 0, -1)
            engine.load_folder(MODEL, held)
            return [group[0] for group in groups]

        rollouts = self.link.submit(host._ask(work)).result()
        self.ask("ferrata-tiny", heldout(1)[0], max_tokens=1)  # which it holds now, in truth
        return rollouts


def streamed(response: Any) -> list[dict]:
    """The pieces of a stream."""
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def joined(pieces: list[dict], field: str, index: int = 0) -> str:
    """One field of one choice's pieces, put together."""
    choices = [c for piece in pieces for c in piece["choices"] if c["index"] == index]
    return "".join(choice["delta"].get(field, "") for choice in choices)
