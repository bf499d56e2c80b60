"""Scores by reasoning-gym's own scorers, which accept every right answer, not only the listed one.

The row is an entry of reasoning-gym: `question`, `answer` and `metadata`, whose `source_dataset`
names the data set, unless the grader does. The answer is the last turn's visible text, or what
stands in its last <answer> tags.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from rollout.steps import visible_text
from rollout.types import Problem, Rollout
from rollout.verifiers.base import Grade, Grader, GraderError, InvalidVariableError, Seconds
from rollout.verifiers.process import CallOverrunError, call_within

SCORE = "rollout.verifiers.gym_scores:score"
_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)


class ReasoningGymGrader(Grader):
    """Scores what the data set's scorer says, in [0, 1]."""

    type: Literal["reasoning_gym"] = "reasoning_gym"
    name: str = "reasoning_gym"
    dataset: Annotated[str, Field(min_length=1)] | None = None  # None: the row's own
    # False: a scorer's crumbs, 0.01 for a wrong answer of the right form, count as 0.
    partial_credit: bool = True
    deadline_s: Seconds = 10.0  # for one verdict
    max_characters: PositiveInt = 10_000  # of an answer; longer ones score 0 unread

    def read_last_turn(self, text: str) -> str:
        """What it reads out of a rollout: the answer in the last turn's text, maybe empty."""
        tagged = _TAGGED.findall(visible := visible_text(text))
        return (tagged[-1] if tagged else visible).strip()

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        entry = _entry(problem)
        in_row = entry["metadata"].get("source_dataset") or problem.item.get("dataset")
        dataset = self.dataset or in_row
        if not isinstance(dataset, str):
            raise InvalidVariableError(
                f"problem {problem.id} names no data set: give the row metadata.source_dataset, or "
                "the grader `dataset`"
            )
        answer = self.read_last_turn(rollout.turns[-1].text)
        if not answer:
            return Grade(0.0, format_error=True)
        if len(answer) > self.max_characters:
            return Grade(0.0, details={"too_long": 1.0})
        argument = {"dataset": dataset, "entry": entry, "answer": answer}
        try:
            result = call_within(SCORE, argument, self.deadline_s)
        except CallOverrunError as error:
            if error.stage is None:
                raise GraderError(
                    f"reasoning-gym's {dataset} could not be loaded: {error}"
                ) from None
            return Grade(0.0, details={"timeout": 1.0})
        if "unknown" in result:
            raise GraderError(
                f"reasoning-gym has no data set {dataset!r}; it has {', '.join(result['unknown'])}"
            )
        score = result["score"]
        if not self.partial_credit and score < 1:
            score = 0.0
        return Grade(score, format_error="refused" in result)


def _entry(problem: Problem) -> dict[str, Any]:
    item = problem.item
    entry = item["entry"] if isinstance(item.get("entry"), dict) else item
    missing = [key for key in ("question", "answer", "metadata") if key not in entry]
    if missing or not isinstance(entry["metadata"], dict):
        raise InvalidVariableError(
            f"problem {problem.id} is no entry of reasoning-gym: the row lacks "
            f"{', '.join(missing) or 'metadata as a mapping'}"
        )
    return {key: entry[key] for key in ("question", "answer", "metadata")}
