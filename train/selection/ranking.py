"""What was measured of a candidate, and how it is told. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.selection.srl_probe import SRLGain


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
    step_rewards: tuple[
        float, ...
    ] = ()  # of single steps against the experts', where rows have any

    @property
    def step_reward(self) -> float | None:
        """Mean reward of single steps: tells models apart that solve nothing yet."""
        return fmean(self.step_rewards) if self.step_rewards else None


@dataclass(frozen=True)
class Candidate:
    """A model that was looked at: measured, or left out for a reason."""

    model_id: str
    num_parameters: int | None = None
    measured: Measurement | None = None
    reason: str | None = None  # why it was not measured
    interval: tuple[float, float] | None = None  # 95%, of pass@k
    # Why it is not on the Pareto front, which holds models measured on the same problems alone.
    lost: str | None = None
    # What a short SRL run did, where no candidate solves anything; None: there was none.
    gain: "SRLGain | None" = None
    training: dict[str, Any] | None = None  # device-hours and cost of its job; None: not known

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
                "step_reward": seen.step_reward,
                "num_problems": seen.num_problems,
                "seconds": round(seen.seconds, 1),
                "srl_probe": asdict(self.gain) if self.gain else None,
            }
            if seen
            else None,
            "training": self.training,
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
        step_rewards=tuple(reward for part in parts for reward in part.step_rewards),
    )
