"""Does the rollout end with the reference answer?"""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from rollout.steps import visible_text
from rollout.types import Problem, Rollout, Verdict


def normalise_answer(answer: str) -> str:
    """Lower the case, collapse white space, drop a closing full stop."""
    return " ".join(answer.split()).rstrip(".").strip().casefold()


class AnswerVerifier(BaseModel):
    """Scores 1 when the final answer equals `problem.reference_answer`, else 0.

    The answer is read from the last turn's visible text (thinks removed), and only when the
    policy ended its turn itself: a rollout that was cut off has not answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["answer"] = "answer"
    name: str = "answer"
    # The last match's group 1 is the answer. None: the last non-empty line.
    pattern: str | None = None
    normalise: bool = True  # False compares exactly

    @property
    def needs_reference_answer(self) -> bool:
        """Rows without `reference_answer` cannot be graded."""
        return True

    @field_validator("pattern")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(
                f"{pattern!r} has {groups} groups: put exactly one pair of parentheses around "
                "the answer"
            )
        return pattern

    def extract(self, text: str) -> str | None:
        """Return the answer in `text`, or None when there is none."""
        visible = visible_text(text)
        if self.pattern is None:
            lines = [line.strip() for line in visible.splitlines() if line.strip()]
            return lines[-1] if lines else None
        matches = re.findall(self.pattern, visible)
        return matches[-1] if matches else None

    def read_last_turn(self, text: str) -> str | None:
        """What it reads out of a rollout: the answer in the last turn's text."""
        return self.extract(text)

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict:
        """Return 1 or 0. Raises ValueError when the problem has no reference answer."""
        if problem.reference_answer is None:
            raise ValueError(f"problem {problem.id} has no reference answer to compare with")
        if not rollout.finished:
            return Verdict(0.0, format_error=True)
        answer = self.extract(rollout.turns[-1].text)
        if answer is None:
            return Verdict(0.0, format_error=True)
        wanted = problem.reference_answer
        if self.normalise:
            answer, wanted = normalise_answer(answer), normalise_answer(wanted)
        return Verdict(float(answer == wanted))
