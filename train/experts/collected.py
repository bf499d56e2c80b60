"""What became of the problems that a teacher was asked. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from train.data import Row
from train.experts.families import Solution
from train.experts.teachers import Draft

Outcome = Literal["accepted", "rejected", "dropped"]
MAX_SHOWN = 5


@dataclass(frozen=True)
class Asked:
    """What became of one problem."""

    row_id: str
    outcome: Outcome
    reason: str | None  # of the last rejection, or of the drop
    drafts: int  # that the teacher wrote
    repaired: bool  # accepted after a rejection
    prompt_tokens: int
    completion_tokens: int
    solution: Solution | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    message: str | None = None  # what the teacher or the grader said when it failed


@dataclass
class Collected:
    """What became of all problems that were asked."""

    asked: list[Asked] = field(default_factory=list)
    stopped: str | None = None  # why the rest was not asked
    left_out: dict[str, int] = field(default_factory=dict)  # rows that were not to be asked, by why
    writer: str = "the teacher"  # as a sentence begins with it

    def count(self, outcome: Outcome) -> int:
        """Problems that ended so."""
        return sum(one.outcome == outcome for one in self.asked)

    @property
    def solutions(self) -> dict[str, Solution]:
        """The accepted ones, by row id."""
        return {one.row_id: one.solution for one in self.asked if one.solution is not None}

    def summary(self) -> dict[str, Any]:
        """Counts as JSON values: asked = accepted + rejected + dropped."""
        failed = Counter(one.reason for one in self.asked if one.outcome != "accepted")
        said: dict[str, str] = {}
        for one in self.asked:
            if one.message is not None:
                said.setdefault(str(one.reason), one.message)
        return {
            "asked": len(self.asked),
            **{name: self.count(name) for name in ("accepted", "rejected", "dropped")},
            "repairs": sum(one.repaired for one in self.asked),
            "drafts": sum(one.drafts for one in self.asked),
            "prompt_tokens": sum(one.prompt_tokens for one in self.asked),
            "completion_tokens": sum(one.completion_tokens for one in self.asked),
            "reasons": dict(failed.most_common(MAX_SHOWN)),
            "first_failures": said,
            "stopped": self.stopped,
            "left_out": self.left_out,
        }

    def describe(self) -> str:
        """One sentence for people."""
        told = self.summary()
        text = (
            f"{self.writer} was asked for {told['asked']} solutions: {told['accepted']} verified "
            f"({told['repairs']} after a repair), {told['rejected']} rejected, "
            f"{told['dropped']} dropped"
        )
        said = told["first_failures"]
        shown = "; ".join(
            f"{n}x {reason}" + (f", first: {said[reason]}" if reason in said else "")
            for reason, n in told["reasons"].items()
        )
        text += f" ({shown})" if shown else ""
        if self.left_out:
            left = "; ".join(f"{n}x {reason}" for reason, n in self.left_out.items())
            text += f"; rows left out before: {left}"
        return f"{text}; {self.stopped}" if self.stopped else text


def ended(
    row: Row,
    outcome: Outcome,
    reason: str | None,
    drafts: Sequence[Draft],
    solution: Solution | None = None,
    provenance: dict[str, Any] | None = None,
    message: str | None = None,
) -> Asked:
    """How one row ended, with what its drafts cost."""
    accepted = outcome == "accepted"
    return Asked(
        row_id=row.id,
        outcome=outcome,
        reason=None if accepted else reason,
        drafts=len(drafts),
        repaired=accepted and reason is not None,
        prompt_tokens=sum(draft.prompt_tokens for draft in drafts),
        completion_tokens=sum(draft.completion_tokens for draft in drafts),
        solution=solution,
        provenance=provenance or {},
        message=message,
    )


def to_json(one: Asked) -> dict[str, Any]:
    """As a journal keeps it."""
    return asdict(one)


def from_json(entry: dict[str, Any]) -> Asked:
    """What `to_json` wrote."""
    raw = entry.get("solution")
    solution = raw and Solution(
        raw["family"], tuple(raw["steps"]), raw["answer"], tuple(raw["thoughts"])
    )
    return Asked(**{**entry, "solution": solution})
