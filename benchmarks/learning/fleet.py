"""One engine and one verifier in this process: what `rollout.pool` is to a job, without actors."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rollout.engine import Engine, EngineSpec
from rollout.payload import pack_weights
from rollout.pool import VerifierWorker
from rollout.types import Problem, Rollout, SamplingSpec, Verdict, Verifier

if TYPE_CHECKING:
    import torch

MAX_MODEL_LEN = 256


class LocalFleet:
    """Publishes, samples and scores; counts the tokens that go through the engine."""

    def __init__(self, model: str, threads: int) -> None:
        import ray

        self._ray = ray
        if not ray.is_initialized():  # the engine reads weights from the object store
            # Given here, Ray writes no token file into the home folder.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray.init(
                address="local",
                num_cpus=1,
                object_store_memory=2**28,
                include_dashboard=False,
                log_to_driver=False,
            )
        self._engine = Engine(
            EngineSpec(
                model=model, max_model_len=MAX_MODEL_LEN, kv_cache_gib=0.25, num_threads=threads
            )
        )
        self._worker = VerifierWorker()
        self._version = 0

    def publish(self, state: "Mapping[str, torch.Tensor]") -> None:
        """Give the engine these weights."""
        self._version += 1
        self._engine.load_weights([self._ray.put(pack_weights(state))], self._version)

    def generate(
        self, problems: list[Problem], num_rollouts: int, sampling: SamplingSpec, seed: int
    ) -> list[list[Rollout]]:
        """Sample `[P][G]`; the same seed and weights give the same rollouts."""
        return self._engine.generate(problems, num_rollouts, sampling, seed, self._version)

    def score(
        self, verifier: Verifier, pairs: Sequence[tuple[Problem, Rollout]]
    ) -> list[Verdict | None]:
        """One verdict per pair."""
        return self._worker.score(verifier, list(pairs))

    def last_failures(self) -> list[str]:
        """The verifier's latest failure, if any."""
        return [text] if (text := self._worker.last_failure()) else []


def forward_tokens(rollouts: Sequence[Rollout]) -> int:
    """Tokens that the engine computed: every turn's prompt anew, and what was sampled."""
    return sum(len(turn.prompt_ids) + len(turn.token_ids) for r in rollouts for turn in r.turns)
