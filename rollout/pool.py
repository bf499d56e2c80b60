"""The fleet: engine and verifier actors, where work is routed and weights are published.

A pool is started by a job's driver and handed, pickled, to the learner: it holds only handles.
Every wait has a deadline. An engine that died is restarted by Ray without weights; it refuses
work (`StalePolicyError`) until the pool has given it the current ones.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from rollout.engine import Engine, EngineSpec, StalePolicyError
from rollout.payload import pack_weights
from rollout.types import Problem, Rollout, SamplingSpec, Verdict, Verifier

if TYPE_CHECKING:
    import torch

MAX_ATTEMPTS = 4  # of one shard of rollouts, over engine deaths
RESTART_POLL_S = 1.0  # between two looks at an actor that Ray is restarting
VERDICT_BATCH = 64  # pairs per call: what one stuck verification can cost at most


@dataclass(frozen=True)
class PoolSpec:
    """How many actors of each kind, what each reserves, and how long to wait for them."""

    num_engines: int
    num_verifiers: int
    cpus_per_engine: float
    gpus_per_engine: float
    cpus_per_verifier: float
    start_deadline_s: float
    generate_deadline_s: float
    verdict_deadline_s: float


class VerifierWorker:
    """Scores batches; one failed verification is one missing verdict."""

    def __init__(self) -> None:
        self._num_scored = 0
        self._failures: Counter[str] = Counter()  # by the error's flag, or its class
        self._last_failure = ""

    def score(
        self, verifier: Verifier, pairs: list[tuple[Problem, Rollout]]
    ) -> list[Verdict | None]:
        """Return a verdict per pair, None where the verifier itself failed.

        A verifier that mostly waits (for a process, or a server) says how many it can do at once.
        """
        concurrency = getattr(verifier, "concurrency", None)
        num_threads = min(concurrency() if concurrency else 1, len(pairs))
        if num_threads <= 1:
            results = [self._verify(verifier, *pair) for pair in pairs]
        else:
            with ThreadPoolExecutor(num_threads) as threads:
                results = list(threads.map(lambda pair: self._verify(verifier, *pair), pairs))
        self._failures.update(reason for _, reason in results if reason is not None)
        verdicts = [verdict for verdict, _ in results]
        self._num_scored += len(verdicts) - verdicts.count(None)
        return verdicts

    def _verify(
        self, verifier: Verifier, problem: Problem, rollout: Rollout
    ) -> tuple[Verdict | None, str | None]:
        try:
            verdict = verifier.verify(problem, rollout)
            if not math.isfinite(verdict.reward):
                raise ValueError(f"the verifier returned {verdict.reward}, no finite number")
            return verdict, None
        except Exception as error:
            # Acceptable: a failed grader is never a reward. The caller asks again, then drops and
            # counts; the reason is in the worker's log.
            self._last_failure = f"{problem.id}: {error!r}"
            print(f"verifier failed on {self._last_failure}")
            return None, getattr(error, "flag", type(error).__name__)

    def counts(self) -> dict[str, Any]:
        """Verdicts given since the start, and failures by reason."""
        return {"scored": self._num_scored, "failed": dict(self._failures)}

    def last_failure(self) -> str:
        """The latest failure, with its problem's id; empty when there was none."""
        return self._last_failure


@dataclass
class RolloutPool:
    """Handles of a running fleet, and the weights it is meant to hold."""

    spec: PoolSpec
    engines: list[Any]
    verifiers: list[Any]
    version: int | None = None
    _payload_ref: list[Any] = field(default_factory=list)

    @classmethod
    def start(cls, spec: PoolSpec, engine: EngineSpec) -> "RolloutPool":
        """Start the actors and wait until each is ready. Raises TimeoutError, naming them."""
        engine_actor = ray.remote(Engine).options(
            num_cpus=spec.cpus_per_engine,
            num_gpus=spec.gpus_per_engine,
            max_restarts=-1,
            runtime_env={"env_vars": engine.environment()},
        )
        verifier_actor = ray.remote(VerifierWorker).options(
            num_cpus=spec.cpus_per_verifier, max_restarts=-1
        )
        pool = cls(
            spec,
            [engine_actor.remote(engine) for _ in range(spec.num_engines)],
            [verifier_actor.remote() for _ in range(spec.num_verifiers)],
        )
        ready = [e.ready.remote() for e in pool.engines]
        ready += [v.counts.remote() for v in pool.verifiers]
        pool._wait(ready, spec.start_deadline_s, "engines and verifiers to start")
        return pool

    def publish(self, state: "Mapping[str, torch.Tensor]", version: int) -> float:
        """Give every engine the weights as policy `version`; return the seconds it took."""
        started_s = time.monotonic()
        self._payload_ref = [ray.put(pack_weights(state))]
        self.version = version
        self._refit(self.engines)
        return time.monotonic() - started_s

    def generate(
        self, problems: list[Problem], num_rollouts: int, sampling: SamplingSpec, seed: int
    ) -> list[list[Rollout]]:
        """Sample on all engines, `[P][G]`. Problem i always goes to engine i mod M."""
        if self.version is None:
            raise RuntimeError("no weights were published: call `publish` before `generate`")
        num_engines = len(self.engines)
        result: list[list[Rollout]] = [[] for _ in problems]
        pending = [i for i in range(num_engines) if problems[i::num_engines]]
        for attempt in range(MAX_ATTEMPTS):
            calls = {
                i: self.engines[i].generate.remote(
                    problems[i::num_engines], num_rollouts, sampling, seed + i, self.version
                )
                for i in pending
            }
            failed = []
            for i, call in calls.items():
                try:
                    shard = self._wait(
                        call, self.spec.generate_deadline_s, f"rollouts of engine {i}"
                    )
                    result[i::num_engines] = shard
                except (RayActorError, StalePolicyError, TimeoutError) as error:
                    # Acceptable: the engine died, came back empty or hangs. It gets the current
                    # weights and the same work again; after MAX_ATTEMPTS the job fails.
                    if isinstance(error, TimeoutError):
                        ray.kill(self.engines[i], no_restart=False)
                    if attempt == MAX_ATTEMPTS - 1:
                        raise RuntimeError(
                            f"engine {i} failed {MAX_ATTEMPTS} times in a row; last: {error}"
                        ) from error
                    failed.append(i)
            if not failed:
                return result
            self._refit([self.engines[i] for i in failed])
            pending = failed
        raise AssertionError("unreachable: the last attempt returns or raises")

    def score(
        self, verifier: Verifier, pairs: Sequence[tuple[Problem, Rollout]]
    ) -> list[Verdict | None]:
        """Score on all verifier actors; None for every pair whose verdict did not come.

        A batch that outlasts its deadline costs its actor, which is replaced; its pairs are then
        asked one by one, so that the stuck one alone goes without a verdict.
        """
        verdicts: list[Verdict | None] = [None] * len(pairs)
        size = max(1, min(VERDICT_BATCH, -(-len(pairs) // len(self.verifiers))))
        indices = list(range(len(pairs)))
        batches = [indices[start : start + size] for start in indices[::size]]
        failed = self._score_batches(verifier, pairs, batches, verdicts)
        if failed:
            singles = [[i] for batch in failed for i in batch]
            self._score_batches(verifier, pairs, singles, verdicts)
        return verdicts

    def _score_batches(
        self,
        verifier: Verifier,
        pairs: Sequence[tuple[Problem, Rollout]],
        batches: Sequence[list[int]],
        verdicts: list[Verdict | None],
    ) -> list[list[int]]:
        """Fill `verdicts` batch by batch, one call at a time per actor; return failed batches."""
        waiting, failed = list(reversed(batches)), []
        running: dict[Any, tuple[int, list[int], float]] = {}
        idle = list(range(len(self.verifiers)))
        while waiting or running:
            while waiting and idle:
                actor, batch = idle.pop(0), waiting.pop()
                call = self.verifiers[actor].score.remote(verifier, [pairs[i] for i in batch])
                running[call] = (actor, batch, time.monotonic() + self.spec.verdict_deadline_s)
            next_deadline = min(deadline for _, _, deadline in running.values())
            ready, _ = ray.wait(list(running), timeout=max(0.0, next_deadline - time.monotonic()))
            now = time.monotonic()
            for call in ready or [c for c, (_, _, deadline) in running.items() if deadline <= now]:
                actor, batch, _ = running.pop(call)
                try:
                    for i, verdict in zip(batch, ray.get(call, timeout=0), strict=True):
                        verdicts[i] = verdict
                except (RayActorError, GetTimeoutError) as error:
                    # Acceptable: these pairs have no verdict yet, and are asked for once more.
                    print(f"verifier {actor} gave no verdicts for {len(batch)} pairs: {error!r}")
                    failed.append(batch)
                    self._replace_verifier(actor, kill=isinstance(error, GetTimeoutError))
                idle.append(actor)
        return failed

    def _replace_verifier(self, index: int, *, kill: bool) -> None:
        """Have Ray restart a verifier that is stuck or dead, and wait until it answers."""
        actor = self.verifiers[index]
        if kill:
            ray.kill(actor, no_restart=False)
        self._until_alive(
            lambda: actor.counts.remote(), f"verifier {index} to restart after a failure"
        )

    def counts(self) -> dict[str, Any]:
        """The actors' own counters: requests finished by vLLM, verdicts per verifier."""
        engines = self._wait(
            [e.num_requests_finished.remote() for e in self.engines], 60.0, "engine counters"
        )
        verifiers = self._wait(
            [v.counts.remote() for v in self.verifiers], 60.0, "verifier counters"
        )
        return {"engine_requests": engines, "verifiers": verifiers}

    def last_failures(self) -> list[str]:
        """The latest failure of each verifier that had one, for a message to a person."""
        calls = [verifier.last_failure.remote() for verifier in self.verifiers]
        return [text for text in self._wait(calls, 60.0, "verifiers' failures") if text]

    def stop(self) -> None:
        """Kill the actors."""
        for actor in [*self.engines, *self.verifiers]:
            ray.kill(actor)

    def _refit(self, engines: Sequence[Any]) -> None:
        """Load the current weights into `engines`, through restarts of theirs."""
        what = f"policy version {self.version} to load"
        calls = [(e, e.load_weights.remote(self._payload_ref, self.version)) for e in engines]
        for engine, call in calls:
            try:
                self._wait(call, self.spec.start_deadline_s, what)
            except (RayActorError, TimeoutError) as error:
                # Acceptable: an engine that restarts, or hangs in work that nobody waits for.
                if isinstance(error, TimeoutError):
                    ray.kill(engine, no_restart=False)
                self._until_alive(
                    lambda e=engine: e.load_weights.remote(self._payload_ref, self.version), what
                )

    def _until_alive(self, call: Callable[[], Any], what: str) -> Any:
        """Repeat `call` while its actors are being restarted, until the start deadline."""
        deadline = time.monotonic() + self.spec.start_deadline_s
        while True:
            try:
                return self._wait(call(), max(1.0, deadline - time.monotonic()), what)
            except RayActorError as error:
                # Acceptable: Ray is restarting the actor; calls fail at once until it is back.
                # An actor whose constructor failed is not restarted.
                if error.actor_init_failed or time.monotonic() > deadline:
                    raise TimeoutError(
                        f"waited (at most {self.spec.start_deadline_s:.0f} s) for {what}, but the "
                        f"actor does not come back: {error}"
                    ) from error
                time.sleep(RESTART_POLL_S)

    def _wait(self, calls: Any, deadline_s: float, what: str) -> Any:
        try:
            return ray.get(calls, timeout=deadline_s)
        except GetTimeoutError:
            raise TimeoutError(
                f"waited {deadline_s:.0f} s for {what}; look at the Ray dashboard for pending "
                "actors, free the cluster, or raise the deadline in the `rollout` section"
            ) from None
        except RayTaskError as error:
            if isinstance(error.cause, StalePolicyError):
                raise error.cause from None
            raise
