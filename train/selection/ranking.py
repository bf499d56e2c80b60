"""Candidates in order: by measured pass@k, then step reward, then counted work. Pure.

Where no model solves anything yet, the reward of single steps against the experts' still tells
models apart: it is what SRL starts from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.statistics import wilson_interval


@dataclass(frozen=True)
class Measurement:
    """What a probe saw of one model."""

    num_problems: int
    k: int
    pass_at_k: float
    sampled: float  # share of single samples that solve their problem
    tokens_per_problem: float  # prompt and sampled, of k rollouts
    flops_per_problem: float
    seconds: float
    step_reward: float | None = None  # mean of single steps against the experts'; None: no steps

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson interval of pass@k: a problem is solved by one of its k samples, or not."""
        return wilson_interval(round(self.pass_at_k * self.num_problems), self.num_problems)


@dataclass(frozen=True)
class Candidate:
    """A model that was looked at: measured, or left out for a reason."""

    model_id: str
    num_parameters: int | None = None
    measured: Measurement | None = None
    reason: str | None = None  # why it was not measured

    def as_json(self) -> dict[str, Any]:
        """For the answer: every number stands under how it was come by."""
        seen = self.measured
        return {
            "model_id": self.model_id,
            "score": seen.pass_at_k if seen else None,
            "reason": self.reason,
            "measured": {
                f"pass_at_{seen.k}": seen.pass_at_k,
                "sampled": seen.sampled,
                "ci95": [round(bound, 4) for bound in seen.ci95],
                "step_reward": seen.step_reward,
                "num_problems": seen.num_problems,
                "seconds": round(seen.seconds, 1),
            }
            if seen
            else None,
            "counted": {
                "num_parameters": self.num_parameters,
                "tokens_per_problem": round(seen.tokens_per_problem, 1) if seen else None,
                "flops_per_problem": float(f"{seen.flops_per_problem:.4g}") if seen else None,
            },
        }


def rank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best first: higher pass@k, then higher step reward, then fewer operations per problem.

    The unmeasured come last.
    """

    def key(candidate: Candidate) -> tuple[float, float, float, str]:
        seen = candidate.measured
        if seen is None:
            return (1.0, 0.0, float("inf"), candidate.model_id)
        step = seen.step_reward or 0.0
        return (-seen.pass_at_k, -step, seen.flops_per_problem, candidate.model_id)

    return sorted(candidates, key=key)


def surely_worse(candidate: Measurement, best: Measurement) -> bool:
    """True when the intervals of pass@k leave no doubt, so that more samples are wasted on it."""
    return candidate.ci95[1] < best.ci95[0]


def pareto_front(candidates: Sequence[Candidate]) -> set[str]:
    """Measured models that no other beats in both pass@k and operations per problem."""
    points = {c.model_id: c.measured for c in candidates if c.measured is not None}
    return {
        name
        for name, seen in points.items()
        if not any(_dominates(other, seen) for other in points.values())
    }


def why_not(candidate: Candidate, best: Candidate) -> str | None:
    """Why a measured candidate lost to the best one; None for the best itself."""
    seen, won = candidate.measured, best.measured
    if seen is None or won is None or candidate is best:
        return candidate.reason
    if seen.pass_at_k != won.pass_at_k:
        sure = "" if surely_worse(seen, won) else "; the intervals overlap"
        return f"pass@{seen.k} {_share(seen)}, against {_share(won)} of {best.model_id}{sure}"
    if (seen.step_reward or 0.0) != (won.step_reward or 0.0):
        return (
            f"as many problems solved, but a step reward of {seen.step_reward or 0.0:.3f}, against "
            f"{won.step_reward or 0.0:.3f} of {best.model_id}"
        )
    return (
        f"no better than {best.model_id}, at {seen.flops_per_problem / won.flops_per_problem:.2g} "
        "times its operations per problem"
    )


def _share(seen: Measurement) -> str:
    low, high = seen.ci95
    return f"{seen.pass_at_k:.3f} ({low:.3f}-{high:.3f}, {seen.num_problems} problems)"


def _dominates(one: Measurement, other: Measurement) -> bool:
    better = one.pass_at_k >= other.pass_at_k and one.flops_per_problem <= other.flops_per_problem
    return better and (one.pass_at_k, one.flops_per_problem) != (
        other.pass_at_k,
        other.flops_per_problem,
    )
