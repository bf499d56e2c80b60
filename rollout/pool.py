"""The fleet: engine and verifier actors, where work is routed and weights are published.

A pool is started by a job's driver and handed, pickled, to the learner: it holds only handles.
Every wait has a deadline. An engine that died is restarted by Ray without weights; it refuses
work (`StalePolicyError`) until the pool has given it the current ones.
"""

import time
from collections.abc import Mapping, Sequence
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
        self.num_scored = 0
        self.num_failed = 0

    def score(
        self, verifier: Verifier, pairs: list[tuple[Problem, Rollout]]
    ) -> list[Verdict | None]:
        """Return a verdict per pair, None where the verifier itself failed."""
        verdicts: list[Verdict | None] = []
        for problem, rollout in pairs:
            try:
                verdicts.append(verifier.verify(problem, rollout))
                self.num_scored += 1
            except Exception as error:
                # Acceptable: a failed grader is never a reward. The caller asks again, then drops
                # and counts; the reason is in the worker's log.
                print(f"verifier failed on {problem.id}: {error!r}")
                verdicts.append(None)
                self.num_failed += 1
        return verdicts

    def counts(self) -> dict[str, int]:
        """Verdicts given and failed since the start."""
        return {"scored": self.num_scored, "failed": self.num_failed}


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
                except (RayActorError, StalePolicyError) as error:
                    # Acceptable: the engine died or came back empty. It gets the current weights
                    # and the same work again; after MAX_ATTEMPTS the job fails with the reason.
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
        """Score on all verifier actors; None for every pair whose verdict did not come."""
        num_verifiers = len(self.verifiers)
        shards = [list(pairs[i::num_verifiers]) for i in range(num_verifiers)]
        calls = [
            (i, self.verifiers[i].score.remote(verifier, shard))
            for i, shard in enumerate(shards)
            if shard
        ]
        verdicts: list[Verdict | None] = [None] * len(pairs)
        for i, call in calls:
            try:
                verdicts[i::num_verifiers] = ray.get(call, timeout=self.spec.verdict_deadline_s)
            except (RayActorError, GetTimeoutError) as error:
                # Acceptable: these pairs have no verdict. The collector asks again, then drops.
                print(f"verifier {i} gave no verdicts: {error!r}")
        return verdicts

    def counts(self) -> dict[str, Any]:
        """The actors' own counters: requests finished by vLLM, verdicts per verifier."""
        engines = self._wait(
            [e.num_requests_finished.remote() for e in self.engines], 60.0, "engine counters"
        )
        verifiers = self._wait(
            [v.counts.remote() for v in self.verifiers], 60.0, "verifier counters"
        )
        return {"engine_requests": engines, "verifiers": verifiers}

    def stop(self) -> None:
        """Kill the actors."""
        for actor in [*self.engines, *self.verifiers]:
            ray.kill(actor)

    def _refit(self, engines: Sequence[Any]) -> None:
        for attempt in range(MAX_ATTEMPTS):
            calls = [e.load_weights.remote(self._payload_ref, self.version) for e in engines]
            try:
                self._wait(
                    calls, self.spec.start_deadline_s, f"policy version {self.version} to load"
                )
                return
            except RayActorError:
                # Acceptable: a restarting engine; the same weights are sent again.
                if attempt == MAX_ATTEMPTS - 1:
                    raise

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
