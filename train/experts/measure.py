"""What a policy does on a job's rows now: whole problems and single steps, sampled and judged.

Needs a running `RolloutPool` that holds the policy's weights.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollout.collector import score_groups
from rollout.types import Problem, RolloutGroup, SamplingSpec, Verifier
from train.data import Row
from train.experts.outcomes import Outcomes
from train.prompts import PromptRenderer
from train.rlvr import rlvr_problems
from train.spec import JobSpec, job_grader
from train.srl import srl_problems, srl_verifier

if TYPE_CHECKING:
    from rollout.pool import RolloutPool

TEMPERATURE = 1.0
CHUNK = 32  # problems sampled between two looks at the wish to stop


class MeasuringCancelledError(Exception):
    """Nothing is known: the caller asked to stop."""


def measure(
    spec: JobSpec,
    pool: "RolloutPool",
    renderer: PromptRenderer,
    rows: Sequence[Row],
    *,
    num_problems: int,
    num_samples: int,
    seed: int,
    observe: Callable[[Sequence[RolloutGroup]], None] = lambda groups: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Outcomes:
    """Sample `num_samples` solutions of at most `num_problems` rows that the grader can judge.

    Where the job has SRL, single steps of as many expert steps too. Which ones, the seed fixes.
    `observe` sees every scored group. Raises MeasuringCancelledError when `cancelled`, which is
    asked before every chunk of problems, says True.
    """
    grader = job_grader(spec)
    outcomes, rng = Outcomes(), random.Random(seed)
    whole = _drawn(rlvr_problems(rows, renderer, grader), num_problems, rng)
    sampling = spec.sampling_spec(TEMPERATURE)
    sample = _Sampler(pool, num_samples, seed, observe, cancelled)
    outcomes.add_groups(sample(whole, sampling, grader), grader)
    if spec.srl is not None:
        steps = _drawn(srl_problems(rows, renderer, spec.srl), num_problems, rng)
        row_of = {problem.id: problem.id.rpartition("/")[0] for problem in steps}
        groups = sample(steps, spec.step_sampling_spec(spec.srl), srl_verifier(spec.srl))
        outcomes.add_step_groups(groups, row_of)
    return outcomes


def _drawn(problems: list[Problem], most: int, rng: random.Random) -> list[Problem]:
    return rng.sample(problems, most) if len(problems) > most else problems


@dataclass(frozen=True)
class _Sampler:
    """Samples and scores, a chunk at a time."""

    pool: "RolloutPool"
    num_samples: int
    seed: int
    observe: Callable[[Sequence[RolloutGroup]], None]
    cancelled: Callable[[], bool]

    def __call__(
        self, problems: list[Problem], sampling: SamplingSpec, verifier: Verifier
    ) -> list[RolloutGroup]:
        found = []
        for start in range(0, len(problems), CHUNK):
            if self.cancelled():
                raise MeasuringCancelledError
            chunk = problems[start : start + CHUNK]
            rollouts = self.pool.generate(chunk, self.num_samples, sampling, self.seed + start)
            groups = score_groups(chunk, rollouts, lambda pairs: self.pool.score(verifier, pairs))
            self.observe(groups)
            found += groups
        return found
