"""Chat engines on Ray: one Serve deployment that holds the fleet, one actor per engine.

`chat_application` goes into the Serve graph beside the API; the API's replicas reach it through a
`RayChatLink`. Nothing is decided here: that is `serve_app.chat`.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from rollout.engine import EngineSpec
from serve_app.chat.fleet import ChatFleet
from serve_app.chat.placement import Locator
from serve_app.chat.types import ChatRequest, Failure, Item
from serve_app.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

log = logging.getLogger(__name__)
DEPLOYMENT = "ChatEngines"
ENGINE_CPUS = 0.25  # logical; threads are set apart
START_DEADLINE_S, LOAD_DEADLINE_S = 900.0, 300.0
HEALTH_DEADLINE_S = 5.0
MAX_ONGOING_REQUESTS = 1000  # of the deployment; the fleet's own queue is shorter
MAX_THREADS = 2
RETRY_LOST_S = 5.0


class EngineActor:
    """`EngineHost` in a process of its own."""

    def __init__(self, spec: EngineSpec) -> None:
        from serve_app.chat.host import EngineHost

        os.environ.update(spec.environment())
        self._host = EngineHost(spec)

    async def pid(self) -> int:
        """The process id."""
        return self._host.pid()

    async def start(self, version: int) -> None:
        """See `EngineHost.start`."""
        await self._host.start(version)

    async def load(self, folder: str, version: int) -> float:
        """See `EngineHost.load`."""
        return await self._host.load(folder, version)

    async def run(self, request: ChatRequest, folder: str, version: int) -> AsyncGenerator[Item]:
        """See `EngineHost.run`."""
        async for item in self._host.run(request, folder, version):
            yield item

    async def abort(self, request_id: str) -> None:
        """See `EngineHost.abort`."""
        self._host.abort(request_id)


class RayEngine:
    """The fleet's link to one engine actor. It ends with the replica that owns it."""

    def __init__(self, spec: EngineSpec, *, num_gpus: float) -> None:
        import ray

        actor = ray.remote(EngineActor).options(
            num_cpus=ENGINE_CPUS,
            num_gpus=num_gpus,
            max_restarts=0,  # the fleet starts another one, with the weights that are wanted then
            runtime_env={"env_vars": spec.environment()},
        )
        self._actor: Any = actor.remote(spec)

    async def start(self, version: int) -> None:
        """Wait for the actor's process and its model."""
        await asyncio.wait_for(_answer(self._actor.start.remote(version)), START_DEADLINE_S)

    async def load(self, folder: str, version: int) -> float:
        """Take other weights."""
        call = _answer(self._actor.load.remote(folder, version))
        return await asyncio.wait_for(call, LOAD_DEADLINE_S)

    async def run(self, request: ChatRequest, folder: str, version: int) -> AsyncGenerator[Item]:
        """Sample the request; leaving early gives it up in the engine."""
        stream = self._actor.run.options(num_returns="streaming").remote(request, folder, version)
        ended = False
        try:
            async for reference in stream:
                yield await reference
            ended = True
        finally:
            if not ended:
                self._actor.abort.remote(request.id)

    async def stop(self) -> None:
        """Kill the actor: it holds nothing that is to be kept."""
        import ray

        ray.kill(self._actor)

    async def ping(self) -> None:
        """Raises when the actor is dead."""
        await _answer(self._actor.pid.remote())


async def _answer(reference: Any) -> Any:
    """An actor's answer, as a coroutine."""
    return await reference


class ChatEngines:
    """The deployment's class: one fleet, in one replica."""

    def __init__(self, settings: Settings) -> None:
        import ray

        on_gpu = ray.cluster_resources().get("GPU", 0) > 0
        locator = Locator(num_threads=min(MAX_THREADS, os.cpu_count() or 1), on_gpu=on_gpu)
        self._fleet = ChatFleet(
            lambda spec: RayEngine(spec, num_gpus=float(on_gpu)),
            locator.locate,
            max_engines=settings.max_chat_engines,
            idle_s=settings.chat_idle_s,
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Item]:
        """See `ChatFleet.stream`."""
        async with contextlib.aclosing(self._fleet.stream(request)) as items:
            async for item in items:
                yield item

    async def health(self) -> dict[str, Any]:
        """See `ChatFleet.health`."""
        return self._fleet.health()


def chat_application(settings: Settings) -> "Application":
    """The deployment, to be bound into the Serve graph."""
    from ray import serve

    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=1,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 0.05},
        graceful_shutdown_timeout_s=1.0,
    )
    return deployment(ChatEngines).bind(settings)


class RayChatLink:
    """The API's link to the deployment: `serve_app.context.ChatLink`."""

    def __init__(self, handle: "DeploymentHandle") -> None:
        self._handle = handle

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Item]:
        """Yield what the client is sent; a `Failure` is always the last item."""
        response: Any = self._handle.options(stream=True).stream.remote(request)
        ended = False
        try:
            async for item in response:
                yield item
            ended = True
        except Exception as error:
            # Told to the client: the replica with the fleet died, and Serve starts another one.
            log.warning("the chat deployment failed under a request: %r", error)
            ended = True
            yield Failure(
                503,
                "The engines are being started anew; try again",
                "engine_lost",
                retry_after_s=RETRY_LOST_S,
            )
        finally:
            if not ended:
                response.cancel()

    def health(self) -> Mapping[str, Any]:
        """{"ok", "detail", "engines"}. Never raises."""
        try:
            state = self._handle.health.remote().result(timeout_s=HEALTH_DEADLINE_S)
        except Exception as error:
            # Told: that is what health is for. Its own words may name addresses: they are logged.
            log.warning("the chat deployment does not answer: %r", error)
            reason = type(error).__name__
            return {"ok": False, "detail": f"the chat deployment does not answer: {reason}"}
        running = sum(engine["state"] != "empty" for engine in state["engines"])
        return {"ok": True, "detail": f"{running} engines of {len(state['engines'])}", **state}
