"""One engine and the thread that drives it: requests join and leave between its steps.

The engine is not thread-safe, so everything that touches it runs on one thread: the commands that
arrived, then a step, then again. Coroutines of the event loop talk to that thread and never wait
for it. `serve_app.serving` wraps this in a Ray actor; tests run it in their own process.
"""

import asyncio
import contextlib
import os
import queue
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rollout.engine import ContextLengthError, Engine, EngineSpec
from rollout.types import Problem, SamplingSpec
from serve_app.chat.prompt import PromptError, Prompts
from serve_app.chat.reading import reads_last_turn, same_reading
from serve_app.chat.reply import Reply, ReplyForm
from serve_app.chat.types import ChatRequest, Chunk, Failure, Item, merge
from train.checkpoint import NOT_MODEL

T = TypeVar("T")
SEED_STRIDE, SEED_LIMIT = 1_000_003, 2**63 - 2**20  # far apart; below vLLM's limit with the turns
MAX_TOKEN_CHARS = 128  # no tokenizer here has longer tokens


class EngineBrokenError(RuntimeError):
    """The engine raised in a step; it has to be replaced."""


@dataclass
class _Running:
    """A request on the engine."""

    loop: asyncio.AbstractEventLoop
    # Filled on the event loop: pieces, a `Reply` that needs settling, or the engine's end.
    items: "asyncio.Queue[list[Chunk | Reply] | BaseException]"
    replies: list[Reply]

    def put(self, item: "list[Chunk | Reply] | BaseException") -> None:
        """Hand over from the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self.loop.call_soon_threadsafe(self.items.put_nowait, item)


class EngineHost:
    """Runs one `rollout.engine.Engine`. Its coroutines are called from one event loop."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._running: dict[str, _Running] = {}  # touched by the engine's thread only
        self._engine: Engine | None = None
        self._prompts = Prompts()
        self._thread = threading.Thread(target=self._drive, name="engine", daemon=True)
        self._thread.start()

    def pid(self) -> int:
        """The process that the engine lives in."""
        return os.getpid()

    async def start(self, version: int) -> None:
        """Start the engine; its weights are policy `version`."""
        await self._ask(lambda: self._start(version))

    async def load(self, folder: str, version: int) -> float:
        """Take the weights in `folder` as policy `version`; return the seconds it took."""
        return await self._ask(lambda: self._started().load_folder(Path(folder), version))

    async def run(self, request: ChatRequest, folder: str, version: int) -> AsyncGenerator[Item]:
        """Sample the request and yield what a client is sent; leaving early gives it up.

        Raises EngineBrokenError when the engine fails under it.
        """
        model = request.model
        loop = asyncio.get_running_loop()
        try:
            prompts = [await self._prompts.render(folder, model, p) for p in request.prompts]
            running = await self._ask(lambda: self._submit(request, prompts, version, loop))
            async for chunks in self._pieces(request, running):
                yield chunks
        except PromptError as error:
            yield Failure(400, str(error), "invalid_prompt", error.param)
        except ContextLengthError as error:
            yield _too_long(error, request)
        finally:
            self.abort(request.id)

    def abort(self, request_id: str) -> None:
        """Give a request up; one that has ended, or never came, is passed over."""
        self._commands.put(lambda: self._give_up(request_id))

    async def close(self) -> None:
        """End the threads; the engine's memory goes with its process."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)
        self._prompts.close()

    async def _pieces(self, request: ChatRequest, running: _Running) -> AsyncGenerator[list[Chunk]]:
        """What the engine's thread hands over; of a request that is not streamed, all at once."""
        gathered: list[Chunk] = []
        num_open = request.num_rollouts
        while num_open:
            item = await running.items.get()
            if isinstance(item, BaseException):
                raise EngineBrokenError(repr(item)) from item
            chunks = [await _settled(piece, request) for piece in item]
            num_open -= sum(chunk.finish_reason is not None for chunk in chunks)
            gathered += chunks
            waiting = request.stream and running.items.empty()
            if gathered and (waiting or not num_open):
                yield merge(gathered)
                gathered = []

    async def _ask(self, work: Callable[[], T]) -> T:
        """Do `work` on the engine's thread, between two steps, and return what it returned."""
        future: Future[T] = Future()

        def command() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:
                # Not swallowed: the coroutine that asked raises it.
                future.set_exception(error)

        self._commands.put(command)
        return await asyncio.wrap_future(future)

    # --- on the engine's thread ------------------------------------------------------------------

    def _drive(self) -> None:
        """Commands, a step, commands, a step; waits for commands when there is nothing to do."""
        while True:
            busy = self._engine is not None and self._engine.num_live > 0
            try:
                command = self._commands.get(block=not busy)
            except queue.Empty:
                self._step()
                continue
            if command is None:
                return
            command()

    def _start(self, version: int) -> None:
        with _model_files(Path(self.spec.model)) as folder:
            self._engine = Engine(replace(self.spec, model=str(folder)))
        self._engine.hold_first_weights(version)

    def _started(self) -> Engine:
        if self._engine is None:
            raise EngineBrokenError("the engine was not started, or failed")
        return self._engine

    def _submit(
        self,
        request: ChatRequest,
        prompts: list[str],
        version: int,
        loop: asyncio.AbstractEventLoop,
    ) -> _Running:
        engine = self._started()
        sampling, form = _sampling(request), _form(request)
        running = _Running(loop, asyncio.Queue(), [])
        self._running[request.id] = running
        for number in range(request.num_rollouts):
            prompt = prompts[number // request.num_choices]
            limit = request.model.max_model_len or self.spec.max_model_len
            if len(prompt) > limit * MAX_TOKEN_CHARS:  # tokenizing it would hold up everybody
                raise ContextLengthError(len(prompt) // MAX_TOKEN_CHARS, limit)
            extras = replace(
                request.extras,
                max_total_tokens=request.max_tokens,
                seed=_seed(request.extras.seed, number),
                incremental=True,
            )
            num_tokens = engine.submit(
                (request.id, number),
                Problem(request.id, prompt),
                sampling,
                extras,
                version,
                request.model.max_model_len,
            )
            running.replies.append(Reply(number, num_tokens, form, request.stop))
        return running

    def _step(self) -> None:
        """One step of the engine, and what it sampled on its way to the clients."""
        engine = self._started()
        touched: dict[str, dict[int, Reply]] = {}
        try:
            for update in engine.step():
                request_id, number = update.key
                reply = self._running[request_id].replies[number]
                if reply.finish is None:
                    reply.add(update)
                    touched.setdefault(request_id, {})[number] = reply
                    if reply.finish is not None and update.rollout is None:
                        engine.abort([update.key])
        except Exception as error:
            # Every request is told, and so is whoever asks later; the engine is not used again.
            self._engine = None
            for running in self._running.values():
                running.put(error)
            return
        for request_id, replies in touched.items():
            pieces = [r if r.in_question() else r.take() for r in replies.values()]
            if sent := [piece for piece in pieces if piece is not None]:
                self._running[request_id].put(sent)

    def _give_up(self, request_id: str) -> None:
        running = self._running.pop(request_id, None)
        if running is not None and self._engine is not None:
            self._engine.abort([(request_id, n) for n in range(len(running.replies))])


async def _settled(piece: Chunk | Reply, request: ChatRequest) -> Chunk:
    """The chunk itself, or that of a reply after its job's grader said which text it reads."""
    if isinstance(piece, Chunk):
        return piece
    texts, grader = piece.in_question(), request.model.grader
    assert texts is not None, "only a reply in question is handed over"
    assert grader is not None, "only a grader puts a reply in question"
    joined, last = texts
    same = await asyncio.to_thread(same_reading, grader, joined, last)
    piece.settle(joined if same else last)
    chunk = piece.take()
    assert chunk is not None, "a reply that ended has a last piece"
    return chunk


def _sampling(request: ChatRequest) -> SamplingSpec:
    """As the model was trained; anything else by one generation as long as there is room."""
    trained = request.model.sampling
    if trained is None or request.raw:
        return SamplingSpec("single", max_tokens=sys.maxsize, temperature=request.temperature)
    return replace(trained, temperature=request.temperature)


def _form(request: ChatRequest) -> ReplyForm:
    """How the turns become the reply that the job's grader reads as it read the rollout."""
    trained, grader = request.model.sampling, request.model.grader
    if request.raw or trained is None or trained.protocol == "single":
        return ReplyForm(raw=request.raw)
    if reads_last_turn(grader):
        return ReplyForm(separator=trained.step_end, hold=True)
    return ReplyForm()  # as `rollout.verifiers.base.output_text` joins them


def _seed(seed: int | None, number: int) -> int | None:
    """One seed per choice; the requests of a stepwise choice count on from it."""
    return None if seed is None else (seed + number * SEED_STRIDE) % SEED_LIMIT


def _too_long(error: ContextLengthError, request: ChatRequest) -> Failure:
    field = "prompt" if request.raw else "messages"
    return Failure(
        400,
        f"This model's maximum context length is {error.max_model_len} tokens. However, your "
        f"{field} resulted in at least {error.num_tokens} tokens, which leaves no room for an "
        f"answer: shorten the {field}.",
        "context_length_exceeded",
        field,
    )


@contextlib.contextmanager
def _model_files(folder: Path) -> Iterator[Path]:
    """The folder, or a view of it without what is a checkpoint's but not the model's."""
    if not any((folder / name).exists() for name in NOT_MODEL):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="model-") as view:
        for file in folder.iterdir():
            if file.name not in NOT_MODEL:
                (Path(view) / file.name).symlink_to(file.resolve())
        yield Path(view)
