"""The fleet: engines started, filled, watched and replaced, as `Schedule` decides.

It runs on one event loop and knows engines only as `EngineLink`s, so that its tests need none.
`serve_app.serving` runs it in a Serve replica, with an actor behind each link.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from rollout.engine import EngineSpec
from serve_app.chat.placement import ModelGoneError, ModelUnfitError, Place
from serve_app.chat.schedule import (
    Action,
    Load,
    QueueFullError,
    Run,
    Schedule,
    Slot,
    SlotState,
    Start,
    Stop,
    Ticket,
)
from serve_app.chat.types import ChatModel, ChatRequest, Failure, Item

log = logging.getLogger(__name__)
HOLD_S = 20.0  # a request waits so long for its model before it is asked to come back
RETRY_LOADING_S, RETRY_BUSY_S = 5.0, 2.0
MAX_WAITING = 128  # requests over all models
MAX_ROLLOUTS = 64  # given to one engine at once; it decodes as many of them as it holds
MAX_ATTEMPTS = 2  # of a request from which nothing was sent, over deaths of engines
TICK_S = 1.0
PING_DEADLINE_S = 30.0


class EngineLink(Protocol):
    """One engine, wherever it runs. Whatever a call raises, the engine is given up for it."""

    async def start(self, version: int) -> None:
        """Return when the engine is ready; its weights are policy `version`."""
        ...

    async def load(self, folder: str, version: int) -> float:
        """Take other weights; return the seconds it took."""
        ...

    def run(self, request: ChatRequest, folder: str, version: int) -> AsyncGenerator[Item]:
        """Sample the request."""
        ...

    async def stop(self) -> None:
        """End the engine. Never raises."""
        ...

    async def ping(self) -> None:
        """Raises when the engine is gone."""
        ...


class EngineError(RuntimeError):
    """The engine could not be started, or not be given the weights."""


@dataclass
class _Held:
    """An engine in a slot, and the policy version that it holds."""

    link: EngineLink
    version: int


class ChatFleet:
    """Answers requests with at most `max_engines` engines."""

    def __init__(
        self,
        launch: Callable[[EngineSpec], EngineLink],
        locate: Callable[[ChatModel], Place],
        *,
        max_engines: int,
        idle_s: float,
        hold_s: float = HOLD_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._launch, self._locate, self._hold_s = launch, locate, hold_s
        self._schedule = Schedule(max_engines, idle_s, max_waiting, MAX_ROLLOUTS)
        self._places: dict[str, Place] = {}  # by the weights' name, of every model asked for
        self._versions = 0
        self._work: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Item]:
        """Yield what the client is sent; a `Failure` is always the last item."""
        self._keep_ticking()
        try:
            place = await asyncio.to_thread(self._locate, request.model)
        except ModelGoneError as error:
            yield Failure(404, str(error), "model_not_found", "model")
            return
        except ModelUnfitError as error:
            yield Failure(400, str(error), "model_not_servable", "model")
            return
        self._places[place.weights] = place
        ticket = Ticket(place.weights, place.fingerprint, request.num_rollouts)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            failure = await self._admit(ticket, again=attempt > 1)
            if failure is not None:
                yield failure
                return
            sent = False
            slot = ticket.slot
            assert slot is not None, "an admitted ticket has a slot"
            held: _Held = slot.handle
            try:
                run = held.link.run(request, str(place.folder), held.version)
                async with contextlib.aclosing(run) as items:
                    async for item in items:
                        sent = True
                        yield item
                return
            except Exception as error:
                # Acceptable: the engine died or broke. It is replaced, and what was not answered
                # yet is asked again.
                log.warning("chat engine in slot %d failed: %r", slot.number, error)
                self._lose(slot, held)
            finally:
                self._schedule.done(ticket, time.monotonic())
                self._pump()
            # Only a loss comes here.
            if sent or attempt == MAX_ATTEMPTS:
                yield Failure(
                    503,
                    f"The engine that answered for {request.model.name!r} was lost; another one is "
                    "being started. Try again",
                    "engine_lost",
                    retry_after_s=RETRY_LOADING_S,
                )
                return

    def health(self) -> dict[str, Any]:
        """Every slot's state, and how many requests wait; no model, since anybody may ask."""
        return {
            "engines": [
                {"state": s.state.value, "running": s.num_running} for s in self._schedule.slots
            ],
            "waiting": sum(t.reserved_until_s is None for t in self._schedule.waiting),
        }

    async def close(self) -> None:
        """Stop every engine."""
        tasks = [*self._work, *([self._ticker] if self._ticker else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for slot in self._schedule.slots:
            if slot.handle is not None:
                await slot.handle.link.stop()

    async def _admit(self, ticket: Ticket, *, again: bool) -> Failure | None:
        """Wait until the request may run; return why not."""
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket.payload = admitted
        try:
            if again:
                self._schedule.add_first(ticket)
            else:
                self._schedule.add(ticket)
        except QueueFullError as error:
            return Failure(
                503, f"{error}; try again", "engine_overloaded", retry_after_s=RETRY_BUSY_S
            )
        self._pump()
        try:
            await asyncio.wait_for(asyncio.shield(admitted), self._hold_s)
        except asyncio.TimeoutError:
            return self._send_away(ticket)
        except EngineError as error:
            return Failure(503, str(error), "engine_failed", retry_after_s=RETRY_LOADING_S)
        except asyncio.CancelledError:
            self._forget(ticket)
            raise
        return None

    def _send_away(self, ticket: Ticket) -> Failure | None:
        """The request waited long enough: keep its place and have the client come back."""
        if ticket.slot is not None:
            return None  # admitted in the very last moment
        loading = any(
            slot.model == ticket.model and slot.state is not SlotState.READY
            for slot in self._schedule.slots
        )
        retry_s = RETRY_LOADING_S if loading else RETRY_BUSY_S
        self._schedule.leave(ticket, keep_until_s=time.monotonic() + retry_s)
        why = "is being loaded" if loading else "waits for a free engine"
        return Failure(
            503, f"The model {why}; try again shortly", "model_loading", "model", retry_s
        )

    def _forget(self, ticket: Ticket) -> None:
        """The client left while it waited."""
        if ticket.slot is not None:
            self._schedule.done(ticket, time.monotonic())
        elif ticket in self._schedule.waiting:
            self._schedule.leave(ticket)
        self._pump()

    def _pump(self) -> None:
        """Do what the schedule decides."""
        for action in self._schedule.decide(time.monotonic()):
            if isinstance(action, Run):
                action.ticket.payload.set_result(None)
                continue
            self._background(self._turn_over(action))

    async def _turn_over(self, action: Action) -> None:
        """Stop, start or fill an engine."""
        assert not isinstance(action, Run), "a run needs no turning over"
        slot, model = action.slot, action.slot.model or ""
        self._versions += 1
        version = self._versions
        try:
            if isinstance(action, Load):
                folder = str(self._places[model].folder)
                seconds = await slot.handle.link.load(folder, version)
                slot.handle.version = version
                log.info("chat engine %d took %s in %.2f s", slot.number, folder, seconds)
            else:
                await self._stop(slot)
            if isinstance(action, Start):
                slot.handle = _Held(self._launch(self._places[model].spec), version)
                await slot.handle.link.start(version)
        except Exception as error:
            # Acceptable: told to every request that waits for it; the slot is free for others.
            log.error("chat engine %d cannot hold %s", slot.number, model, exc_info=error)
            self._refuse(model)
            await self._stop(slot)
            self._schedule.emptied(slot)
        else:
            if isinstance(action, Stop):
                self._schedule.emptied(slot)
            else:
                self._schedule.ready(slot, time.monotonic())
        self._pump()

    async def _stop(self, slot: Slot) -> None:
        held, slot.handle = slot.handle, None
        if held is not None:
            await held.link.stop()

    def _lose(self, slot: Slot, held: _Held) -> None:
        """The engine is dead, or broken beyond use: free its slot. Safe to call again."""
        if slot.handle is held:
            slot.handle = None
            self._schedule.emptied(slot)
            self._background(held.link.stop())

    def _refuse(self, model: str) -> None:
        """Tell all who wait for a model that it could not be brought into an engine."""
        for ticket in [t for t in self._schedule.waiting if t.model == model]:
            self._schedule.leave(ticket)
            if ticket.payload is not None and not ticket.payload.done():
                ticket.payload.set_exception(
                    EngineError(
                        "The model could not be brought into an engine. Try again; the log of "
                        "this service has the reason"
                    )
                )

    def _keep_ticking(self) -> None:
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        """Notice idle engines, kept places that ran out, and engines that died unused."""
        while True:
            await asyncio.sleep(TICK_S)
            for slot in self._schedule.slots:
                held = slot.handle
                if slot.state is SlotState.READY and held is not None:
                    try:
                        await asyncio.wait_for(held.link.ping(), PING_DEADLINE_S)
                    except Exception as error:
                        # Acceptable: the next request starts another one.
                        log.warning("chat engine in slot %d is gone: %r", slot.number, error)
                        self._lose(slot, held)
            self._pump()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
