"""Candidates in order: by measured pass@k, then by counted work. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


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
    solved: tuple[int, ...] = ()  # by problem, of its k samples


@dataclass(frozen=True)
class Candidate:
    """A model that was looked at: measured, or left out for a reason."""

    model_id: str
    num_parameters: int | None = None
    measured: Measurement | None = None
    reason: str | None = None  # why it was not measured
    interval: tuple[float, float] | None = None  # 95%, of pass@k
    lost: str | None = None  # why it is not on the Pareto front

    def as_json(self) -> dict[str, Any]:
        """For the answer: every number stands under how it was come by."""
        seen = self.measured
        return {
            "model_id": self.model_id,
            "score": seen.pass_at_k if seen else None,
            "interval": [round(bound, 4) for bound in self.interval] if self.interval else None,
            "reason": self.reason or self.lost,
            "on_pareto_front": seen is not None and self.lost is None,
            "measured": {
                f"pass_at_{seen.k}": seen.pass_at_k,
                "sampled": seen.sampled,
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


def combine(parts: Sequence[Measurement]) -> Measurement:
    """One measurement of several on different problems, each problem counting alike."""
    num_problems = sum(part.num_problems for part in parts)

    def mean(name: str) -> float:
        return fmean((getattr(p, name) for p in parts), [p.num_problems for p in parts])

    return Measurement(
        num_problems=num_problems,
        k=parts[0].k,
        pass_at_k=mean("pass_at_k"),
        sampled=mean("sampled"),
        tokens_per_problem=mean("tokens_per_problem"),
        flops_per_problem=mean("flops_per_problem"),
        seconds=sum(part.seconds for part in parts),
        solved=tuple(count for part in parts for count in part.solved),
    )


def rank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best first: higher pass@k, then fewer operations per problem; the unmeasured last."""

    def key(candidate: Candidate) -> tuple[float, float, str]:
        seen = candidate.measured
        if seen is None:
            return (1.0, float("inf"), candidate.model_id)
        return (-seen.pass_at_k, seen.flops_per_problem, candidate.model_id)

    return sorted(candidates, key=key)
