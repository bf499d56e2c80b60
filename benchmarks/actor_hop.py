"""What it costs to score in an actor: the pool's call against the same worker in this process.

The verifier is the cheapest there is, so that what is measured is the way there and back: pickling
a batch of rollouts of NUM_TOKENS tokens, one call through Ray, the verdicts' return. One verifier
actor, hence one call per batch.
"""

import os
import secrets
import statistics
import time
from collections.abc import Callable

import ray

from rollout.engine import EngineSpec
from rollout.pool import VERDICT_BATCH, PoolSpec, RolloutPool, VerifierWorker
from rollout.types import Problem, Rollout, Turn
from rollout.verifiers.answer import AnswerVerifier

BATCHES = (1, 16, VERDICT_BATCH)
NUM_TOKENS = 256  # sampled, and as many in the prompt
WARM_UP, RUNS = 20, 200


def make_pair(number: int) -> tuple[Problem, Rollout]:
    """A right answer after some text."""
    ids = tuple(range(number, number + NUM_TOKENS))
    logprobs = tuple(-1.0 / (1 + i) for i in ids)
    turn = Turn(ids, ids, logprobs, "so\n42", "end", ((0, NUM_TOKENS),))
    return Problem(str(number), "prompt", reference_answer="42"), Rollout(str(number), (turn,))


def median_ms(score: Callable[[], list]) -> float:
    """Median milliseconds of a call."""
    for _ in range(WARM_UP):
        assert None not in score()
    durations_s = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        score()
        durations_s.append(time.perf_counter() - started_s)
    return statistics.median(durations_s) * 1000


def main() -> None:
    """Print one line per batch size."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one at home
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    spec = PoolSpec(
        num_engines=0,
        num_verifiers=1,
        cpus_per_engine=0,
        gpus_per_engine=0,
        cpus_per_verifier=0.1,
        start_deadline_s=120,
        generate_deadline_s=1,
        verdict_deadline_s=60,
    )
    pool, here, verifier = (
        RolloutPool.start(spec, EngineSpec("")),
        VerifierWorker(),
        AnswerVerifier(),
    )
    for size in BATCHES:
        pairs = [make_pair(i) for i in range(size)]
        in_actor = median_ms(lambda p=pairs: pool.score(verifier, p))
        in_process = median_ms(lambda p=pairs: here.score(verifier, p))
        print(
            f"actor hop, batch of {size}: {in_actor:.2f} ms in the actor, {in_process:.3f} ms in "
            f"process, ratio of medians {in_actor / in_process:.0f}; "
            f"{(in_actor - in_process) / size * 1000:.0f} us more per verdict",
            flush=True,
        )
    pool.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
