"""Is the answer mathematically equal to the reference? By math-verify, in a process.

Reads the last turn's visible text, as `AnswerVerifier` does. Precision comes before recall: the
answer has to be boxed, follow "the answer is", or be the whole last line, and has to equal the
reference in structure (brackets, order, units) as well as in value. What takes longer than the
deadline scores 0; a reference that cannot be read, or hangs by itself, is an error.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from rollout.steps import visible_text
from rollout.types import Problem, Rollout
from rollout.verifiers.base import Grade, Grader, GraderError, InvalidVariableError, Seconds
from rollout.verifiers.math_text import extract_answer, is_tower
from rollout.verifiers.process import CallOverrunError, call_within
from rollout.verifiers.templates import Template, render_text

COMPARE = "rollout.verifiers.math_equal:compare"


class MathGrader(Grader):
    """Scores 1 when the policy's final answer equals the reference, else 0."""

    type: Literal["math"] = "math"
    name: str = "math"
    # A template such as "{{ item.answer }}". None: the row's `reference_answer`.
    reference: Template | None = None
    boxed_only: bool = False  # True: an answer outside \boxed{} does not count
    # Relative difference at which two numbers are equal; 0 compares exactly.
    rel_tolerance: Annotated[float, Field(ge=0, le=0.01)] = 0.0
    deadline_s: Seconds = 5.0  # for one verdict
    max_characters: PositiveInt = 2000  # of an answer; longer ones score 0 unread

    @property
    def needs_reference_answer(self) -> bool:
        """Rows without `reference_answer` cannot be graded, unless `reference` reads another."""
        return self.reference is None

    def read_last_turn(self, text: str) -> str | None:
        """What it reads out of a rollout: the answer in the last turn's text."""
        return extract_answer(visible_text(text), boxed_only=self.boxed_only)

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        reference = self._reference(problem)
        gold = extract_answer(reference) if "\\boxed" in reference else reference
        answer = self.read_last_turn(rollout.turns[-1].text)
        if answer is None:
            return Grade(0.0, format_error=True)
        if gold is not None and answer.strip() == gold.strip():
            return Grade(1.0)
        if len(answer) > self.max_characters:
            return Grade(0.0, details={"too_long": 1.0})
        if is_tower(answer):
            return Grade(0.0, details={"tower": 1.0})
        argument = {"gold": gold, "answer": answer, "rel_tolerance": self.rel_tolerance}
        try:
            result = call_within(COMPARE, argument, self.deadline_s)
        except CallOverrunError as error:
            if error.stage is None:
                raise GraderError(
                    f"the reference {reference[:80]!r} of problem {problem.id} {error}; simplify it"
                ) from None
            # Acceptable: the reference was read in time, so the sample is what took too long.
            return Grade(0.0, details={"timeout": 1.0})
        return Grade(float(result["equal"]), format_error=not result["readable"])

    def _reference(self, problem: Problem) -> str:
        if self.reference is not None:
            text = render_text(self.reference, problem.item, None)
        else:
            text = problem.reference_answer or ""
        if not text.strip():
            raise InvalidVariableError(
                f"problem {problem.id} has no reference answer: give the row `reference_answer`, "
                'or the grader a `reference` such as "{{ item.answer }}"'
            )
        return text
