"""What a policy did on each row, gathered from evaluations and training rollouts. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from rollout.types import RolloutGroup
from rollout.verifiers.base import passes


@dataclass
class RowOutcome:
    """The samples of one row."""

    num_samples: int = 0
    num_solved: int = 0
    step_rewards: list[float] = field(default_factory=list)  # of single steps, as SRL scores them

    @property
    def pass_rate(self) -> float:
        """Share of the samples that solve the row. Raises ZeroDivisionError without samples."""
        return self.num_solved / self.num_samples

    @property
    def step_reward(self) -> float | None:
        """Mean reward of single steps; None when none was scored."""
        return fmean(self.step_rewards) if self.step_rewards else None


class Outcomes:
    """By row id. Rows that were never sampled are not in it."""

    def __init__(self) -> None:
        self.by_row: dict[str, RowOutcome] = {}

    def as_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` reads them."""
        return {row_id: asdict(one) for row_id, one in self.by_row.items()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Outcomes":
        """What `as_json` wrote."""
        outcomes = cls()
        outcomes.by_row = {row_id: RowOutcome(**one) for row_id, one in found.items()}
        return outcomes

    def add(self, row_id: str, num_samples: int, num_solved: int) -> None:
        """Enter whole solutions. Raises ValueError for more solved than sampled."""
        if not 0 <= num_solved <= num_samples:
            raise ValueError(f"row {row_id}: {num_solved} of {num_samples} samples are solved")
        one = self.by_row.setdefault(row_id, RowOutcome())
        one.num_samples += num_samples
        one.num_solved += num_solved

    def add_evaluation(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """Enter an evaluation's greedy samples: "id" and "solved"."""
        for sample in samples:
            self.add(sample["id"], 1, int(sample["solved"]))

    def add_groups(self, groups: Sequence[RolloutGroup], grader: Any) -> None:
        """Enter groups of whole solutions, judged on the grader's own scale.

        Rollouts without a verdict are no samples.
        """
        for group in groups:
            marks = [passes(grader, verdict.reward) for _, verdict in group.scored()]
            if marks:
                self.add(group.problem.id, len(marks), sum(marks))

    def add_step_groups(self, groups: Sequence[RolloutGroup], row_of: Mapping[str, str]) -> None:
        """Enter groups of single steps; `row_of` gives the row id of each problem id."""
        for group in groups:
            one = self.by_row.setdefault(row_of[group.problem.id], RowOutcome())
            one.step_rewards += [verdict.reward for _, verdict in group.scored()]
