"""A teacher on engines of the cluster's own: vLLM engine actors, one or several.

Every conversation is rendered by the model's own chat template and sampled with a seed of its own,
which the orchestrator derives from row and round. On CPU in float32 a draft is therefore the same
whatever else the engine works on, in this run and in the next.

Drafts that are asked for at once are decoded at once: they join and leave between the engine's
steps. An engine that fails in a step ends its process; Ray starts another, and what it owed is
asked again. Ray must be connected.
"""

import os
import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rollout.engine import Engine, EngineSpec
from rollout.live import ContextLengthError, SamplingExtras
from rollout.types import Problem, SamplingSpec
from train.experts.teachers import Draft, Messages, Repair, TeacherError, TokenPrice

LONGEST_CONTEXT = 8192  # tokens, where the model could take more and the spec does not say
MAX_RESTARTS = 3  # of one engine; as often is what it owed asked again
WEIGHTS = 0  # the one policy version that a teacher's engine ever holds


class TeacherStartError(RuntimeError):
    """The teacher's engines cannot be started; the message says why."""


class EngineTeacherSpec(BaseModel):
    """A model that the cluster itself runs to write solutions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["engine"] = "engine"
    model: Annotated[str, Field(min_length=1, max_length=512)]  # folder or hub name; a service's
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 2048  # less where the context is full
    max_rounds: Annotated[int, Field(ge=1, le=8)] = 3  # drafts of one problem, the first included
    repair: Repair | None = None  # how a rejected draft is asked for again; null: see `repair_of`
    concurrency: Annotated[int, Field(ge=1, le=512)] = 64  # problems asked at once, all engines
    num_engines: Annotated[int, Field(ge=1, le=64)] = 1
    cpus_per_engine: Annotated[float, Field(gt=0)] = 0.5  # logical; threads are separate
    gpus_per_engine: Annotated[float, Field(ge=0)] = 0.0
    num_threads: Annotated[int, Field(ge=1, le=64)] = 2  # CPU only
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_model_len: Annotated[int, Field(ge=2)] | None = None  # null: the model's, at most 8,192
    kv_cache_gib: Annotated[float, Field(gt=0)] = 1.0
    start_deadline_s: Annotated[float, Field(gt=0)] = 600.0  # the engines are ready
    draft_deadline_s: Annotated[float, Field(gt=0)] = 900.0  # one draft, its waiting included
    price: TokenPrice | None = None  # stated by the user; null: costs are not told


@dataclass(frozen=True)
class NoDraft:
    """Why an engine wrote nothing: a `TeacherError` as a value, which crosses processes."""

    reason: str
    message: str


class TeacherEngine:
    """One engine and the thread that drives it; wrapped in a Ray actor by `EngineTeacher`.

    `write` is called from several threads; the engine is touched by its own thread alone.
    """

    def __init__(self, spec: EngineSpec) -> None:
        os.environ.update(spec.environment())
        self._spec = spec
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open: dict[int, tuple[int, Future[Draft | NoDraft]]] = {}  # prompt tokens, answer
        self._num_asked = 0
        self._started: Future[int] = Future()
        threading.Thread(target=self._drive, name="engine", daemon=True).start()

    def ready(self) -> int:
        """The process id, once the model is loaded. Raises what loading it raised."""
        return self._started.result()

    def write(self, messages: Messages, sampling: SamplingSpec, seed: int) -> Draft | NoDraft:
        """Have the conversation answered; waits for the answer."""
        self._started.result()  # raises what loading raised, in an engine that was started again
        answer: Future[Draft | NoDraft] = Future()
        self._commands.put(lambda: self._begin(list(messages), sampling, seed, answer))
        return answer.result()

    def _drive(self) -> None:
        try:
            self._engine = Engine(self._spec)
            self._engine.hold_first_weights(WEIGHTS)
            self._tokenizer = _tokenizer_of(self._spec.model)
        except BaseException as error:
            # Not swallowed: `ready` raises it.
            self._started.set_exception(error)
            return
        self._started.set_result(os.getpid())
        try:
            while True:
                self._take_commands()
                self._step()
        except BaseException:
            # Nobody may wait for an engine that has failed: its process ends, Ray starts another.
            traceback.print_exc()
            os._exit(1)

    def _take_commands(self) -> None:
        """All that are there; waits for one when there is nothing to decode."""
        while True:
            try:
                command = self._commands.get(block=self._engine.num_live == 0)
            except queue.Empty:
                return
            command()

    def _begin(
        self,
        messages: list[dict[str, str]],
        sampling: SamplingSpec,
        seed: int,
        answer: "Future[Draft | NoDraft]",
    ) -> None:
        key = self._num_asked
        self._num_asked += 1
        try:
            prompt = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            # Acceptable: a template is the model's own program and refuses what it likes, such as
            # a system message. There is no draft, and it is counted.
            answer.set_result(NoDraft("template", f"the chat template failed: {error}"))
            return
        try:
            num_tokens = self._engine.submit(
                key, Problem(str(key), str(prompt)), sampling, SamplingExtras(seed=seed), WEIGHTS
            )
        except ContextLengthError as error:
            answer.set_result(NoDraft("context_length", str(error)))
            return
        self._open[key] = (num_tokens, answer)

    def _step(self) -> None:
        for update in self._engine.step():
            if update.rollout is None:
                continue
            num_tokens, answer = self._open.pop(update.key)
            text = update.rollout.turns[0].text
            if text.strip():
                model = self._spec.model
                answer.set_result(Draft(text, model, num_tokens, update.rollout.num_tokens))
            else:
                answer.set_result(NoDraft("empty", "the model wrote no text"))


class EngineTeacher:
    """The teacher: conversations go to the engine that their seed names."""

    def __init__(self, spec: EngineTeacherSpec, engines: list[Any]) -> None:
        self.spec = spec
        self._engines = engines
        self._sampling = SamplingSpec(
            "single", max_tokens=spec.max_tokens, temperature=spec.temperature
        )

    @property
    def name(self) -> str:
        """The model as it was named."""
        return f"engine:{self.spec.model}"

    def write(self, messages: Messages, seed: int) -> Draft:
        """Ask once. Raises TeacherError."""
        import ray

        engine = self._engines[seed % len(self._engines)]
        call = engine.write.remote(list(messages), self._sampling, seed)
        try:
            answer: Any = ray.get(call, timeout=self.spec.draft_deadline_s)
        except ray.exceptions.GetTimeoutError:  # pyright: ignore[reportAttributeAccessIssue]
            raise TeacherError(
                "no_answer",
                f"no draft in {self.spec.draft_deadline_s:.0f} s; lower concurrency or max_tokens, "
                "or raise draft_deadline_s",
            ) from None
        except ray.exceptions.RayError as error:  # pyright: ignore[reportAttributeAccessIssue]
            raise TeacherError("engine_failed", f"the engine failed: {error}") from error
        if isinstance(answer, NoDraft):
            raise TeacherError(answer.reason, answer.message)
        # Under the name that it was asked by: where it lies on the cluster is nobody's concern.
        return Draft(answer.text, self.spec.model, answer.prompt_tokens, answer.completion_tokens)


@contextmanager
def engine_teacher(spec: EngineTeacherSpec, path: str | None = None) -> Iterator[EngineTeacher]:
    """Start the engines, and stop them afterwards. `path`: where the model named in `spec` lies.

    Raises TeacherStartError.
    """
    import ray

    model = path or spec.model
    engine = EngineSpec(
        model=model,
        dtype=spec.dtype,
        max_model_len=spec.max_model_len or _context_of(model, spec.model),
        max_num_seqs=spec.concurrency,
        kv_cache_gib=spec.kv_cache_gib,
        num_threads=spec.num_threads,
        chunked_prefill=False,  # whole prefills keep seeds per request safe on CPU
    )
    actor = ray.remote(TeacherEngine).options(
        num_cpus=spec.cpus_per_engine,
        num_gpus=spec.gpus_per_engine,
        max_restarts=MAX_RESTARTS,
        max_task_retries=MAX_RESTARTS,
        max_concurrency=spec.concurrency + 1,
        runtime_env={"env_vars": engine.environment()},
    )
    engines: list[Any] = [actor.remote(engine) for _ in range(spec.num_engines)]
    try:
        try:
            ray.get([e.ready.remote() for e in engines], timeout=spec.start_deadline_s)
        except ray.exceptions.GetTimeoutError:  # pyright: ignore[reportAttributeAccessIssue]
            raise TeacherStartError(
                f"the teacher's {spec.num_engines} engines were not ready in "
                f"{spec.start_deadline_s:.0f} s; each takes {spec.cpus_per_engine:g} CPUs and "
                f"{spec.gpus_per_engine:g} GPUs: free the cluster, or raise start_deadline_s"
            ) from None
        except ray.exceptions.RayError as error:  # pyright: ignore[reportAttributeAccessIssue]
            last = str(error).strip().splitlines()[-1].replace(model, spec.model)
            raise TeacherStartError(f"the teacher {spec.model!r} cannot be run: {last}") from error
        yield EngineTeacher(spec, engines)
    finally:
        for each in engines:
            ray.kill(each)


def _context_of(model: str, name: str) -> int:
    """The context that a model was made for, in tokens. Raises TeacherStartError, naming `name`."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        line = str(error).splitlines()[0].replace(model, name)
        raise TeacherStartError(
            f"the teacher's model cannot be read ({line}); give a hub name, or a folder that holds "
            "config.json, tokenizer.json and model.safetensors"
        ) from None
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(longest or LONGEST_CONTEXT, LONGEST_CONTEXT)


def _tokenizer_of(model: str) -> Any:
    """The tokenizer. Raises ValueError when it has no chat template."""
    from train.prompts import tokenizer_of

    tokenizer = tokenizer_of(model)
    if not tokenizer.chat_template:
        raise ValueError(
            "its tokenizer has no chat template; add `chat_template` to tokenizer_config.json"
        )
    return tokenizer
