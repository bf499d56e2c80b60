"""Evaluation: greedy accuracy and pass@k over whole problems, with Wilson intervals."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rollout.collector import score_groups
from rollout.pool import RolloutPool
from rollout.types import Problem, RolloutGroup, SamplingSpec, Verifier
from rollout.verifiers.base import passes
from train.statistics import pass_at_k, wilson_interval

MIN_JUDGED_SHARE = 0.9  # of an evaluation's problems; below, an accuracy would mislead
MAX_REASON = 1000  # characters of failures in a message


@dataclass(frozen=True, slots=True)
class Ledger:
    """Requests finished by the engines, by what became of them."""

    scored: int = 0
    dropped: int = 0

    def add(self, groups: Sequence[RolloutGroup]) -> "Ledger":
        """This ledger with the requests of `groups` entered."""
        scored = sum(r.num_requests for g in groups for r, _ in g.scored())
        total = sum(r.num_requests for g in groups for r in g.rollouts)
        return Ledger(self.scored + scored, self.dropped + total - scored)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy of one policy on one set of problems."""

    greedy: float  # share of judged problems that the greedy rollout solves
    mean_reward: float  # of the greedy rollouts; equal to `greedy` where rewards are 0 or 1
    format_error_rate: float  # share of the greedy rollouts that are not of the required form
    num_problems: int  # judged
    num_without_verdict: int  # left out of every number: the grader failed twice
    ci95: tuple[float, float]  # Wilson, of greedy
    seconds: float
    ledger: Ledger
    samples: tuple[dict[str, Any], ...]  # per problem: "id", "turns" (texts), "reward", "solved"
    pass_at_k: float | None = None  # None when not asked for
    sampled: float | None = None  # share of the same samples that solve their problem


def evaluate(
    pool: RolloutPool,
    problems: Sequence[Problem],
    verifier: Verifier,
    greedy: SamplingSpec,
    *,
    pass_k: int = 0,
    sampled: SamplingSpec | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate the published policy.

    A problem without a verdict is left out and counted. Raises RuntimeError when fewer than
    MIN_JUDGED_SHARE of the problems were judged.
    """
    started_s = time.monotonic()
    groups = _run(pool, problems, verifier, 1, greedy, seed)
    samples = tuple(_sample(group, verifier) for group in groups if group.scored())
    if len(samples) < MIN_JUDGED_SHARE * len(problems):
        raise RuntimeError(
            f"the grader judged {len(samples)} of {len(problems)} problems, too few for an "
            f"accuracy; its latest failures: {'; '.join(pool.last_failures())[:MAX_REASON]}"
        )
    solved = sum(sample["solved"] for sample in samples)
    malformed = [verdict.format_error for group in groups for _, verdict in group.scored()]
    ledger = Ledger().add(groups)
    pass_at, sampled_share = None, None
    if pass_k and sampled is not None:
        groups = _run(pool, problems, verifier, pass_k, sampled, seed)
        ledger = ledger.add(groups)
        judged = [group for group in groups if None not in group.verdicts]
        pass_at = fmean(pass_at_k(pass_k, num_solved(g, verifier), pass_k) for g in judged)
        sampled_share = fmean(num_solved(g, verifier) / pass_k for g in judged)
    return Evaluation(
        greedy=solved / len(samples),
        mean_reward=fmean(sample["reward"] for sample in samples),
        format_error_rate=fmean(map(float, malformed)),
        num_problems=len(samples),
        num_without_verdict=len(problems) - len(samples),
        ci95=wilson_interval(solved, len(samples)),
        seconds=time.monotonic() - started_s,
        ledger=ledger,
        samples=samples,
        pass_at_k=pass_at,
        sampled=sampled_share,
    )


def num_solved(group: RolloutGroup, grader: Any = None) -> int:
    """Rollouts of the group that solve their problem, by `rollout.verifiers.base.passes`.

    Without a grader its scale is 0 to 1.
    """
    return sum(passes(grader, verdict.reward) for _, verdict in group.scored())


def _sample(group: RolloutGroup, grader: Any) -> dict[str, Any]:
    """The greedy rollout of a group of one, for people to read."""
    ((rollout, verdict),) = group.scored()
    return {
        "id": group.problem.id,
        "turns": [turn.text for turn in rollout.turns],
        "reward": verdict.reward,
        "solved": passes(grader, verdict.reward),
    }


def _run(
    pool: RolloutPool,
    problems: Sequence[Problem],
    verifier: Verifier,
    num_rollouts: int,
    sampling: SamplingSpec,
    seed: int,
) -> list[RolloutGroup]:
    rollouts = pool.generate(list(problems), num_rollouts, sampling, seed)
    return score_groups(problems, rollouts, lambda pairs: pool.score(verifier, pairs))
