"""What a policy does on a job's rows now: whole problems and single steps, sampled and judged.

Needs a running `RolloutPool` that holds the policy's weights.
"""

import random
from collections.abc import Callable, Sequence
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
) -> Outcomes:
    """Sample `num_samples` solutions of at most `num_problems` rows that the grader can judge.

    Where the job has SRL, single steps of as many expert steps too. Which ones, the seed fixes.
    `observe` sees every scored group.
    """
    grader = job_grader(spec)
    outcomes, rng = Outcomes(), random.Random(seed)
    whole = _drawn(rlvr_problems(rows, renderer, grader), num_problems, rng)
    sampling = spec.sampling_spec(TEMPERATURE)
    groups = _sampled(pool, whole, num_samples, sampling, grader, seed)
    observe(groups)
    outcomes.add_groups(groups, grader)
    if spec.srl is not None:
        steps = _drawn(srl_problems(rows, renderer, spec.srl), num_problems, rng)
        row_of = {problem.id: problem.id.rpartition("/")[0] for problem in steps}
        sampling, verifier = spec.step_sampling_spec(spec.srl), srl_verifier(spec.srl)
        groups = _sampled(pool, steps, num_samples, sampling, verifier, seed)
        observe(groups)
        outcomes.add_step_groups(groups, row_of)
    return outcomes


def _drawn(problems: list[Problem], most: int, rng: random.Random) -> list[Problem]:
    return rng.sample(problems, most) if len(problems) > most else problems


def _sampled(
    pool: "RolloutPool",
    problems: list[Problem],
    num_samples: int,
    sampling: SamplingSpec,
    verifier: Verifier,
    seed: int,
) -> list[RolloutGroup]:
    if not problems:
        return []
    rollouts = pool.generate(problems, num_samples, sampling, seed)
    return score_groups(problems, rollouts, lambda pairs: pool.score(verifier, pairs))
