"""Several graders and a formula over their rewards."""

import keyword
from collections import Counter
from typing import Any, Literal

from pydantic import BaseModel, SerializeAsAny, field_validator, model_validator

from rollout.types import Problem, Rollout
from rollout.verifiers.base import FormulaError, Grade, Grader, GraderError, TokenUsage, grade_with
from rollout.verifiers.formula import FUNCTIONS, Formula, parse_formula
from rollout.verifiers.registry import parse_grader

MAX_GRADERS = 20


class MultiGrader(Grader):
    """Scores `calculate_output` over the rewards of `graders`, by name.

    `graders` may be written as a mapping, as a list or as a single grader: a mapping's keys, or
    else the graders' own names, are the formula's names. One grader without a verdict leaves the
    whole without one.
    """

    type: Literal["multi"] = "multi"
    name: str = "multi"
    graders: dict[str, SerializeAsAny[BaseModel]]
    calculate_output: str

    @field_validator("graders", mode="before")
    @classmethod
    def _by_name(cls, graders: Any) -> dict[str, Any]:
        """Bring the three ways of writing to one. Raises ValueError."""
        if isinstance(graders, dict) and "type" in graders:
            graders = [graders]
        if isinstance(graders, list):
            parsed = [_part("a grader", raw) for raw in graders]
            names = [str(getattr(grader, "name", "")) for grader in parsed]
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"two graders are named {twice[0]!r}: give each its own name")
            return dict(zip(names, parsed, strict=True))
        if isinstance(graders, dict):
            return {str(name): _part(repr(name), raw) for name, raw in graders.items()}
        raise ValueError(f"graders is a {type(graders).__name__}: write a mapping of graders")

    @model_validator(mode="after")
    def _can_be_calculated(self) -> "MultiGrader":
        if not 1 <= len(self.graders) <= MAX_GRADERS:
            raise ValueError(f"{len(self.graders)} graders: give 1 to {MAX_GRADERS}")
        for name, grader in self.graders.items():
            if not name.isidentifier() or keyword.iskeyword(name) or name in FUNCTIONS:
                raise ValueError(
                    f"{name!r} cannot stand in a formula: name the grader with letters, digits "
                    f"and _, and not {', '.join(FUNCTIONS)}"
                )
            if isinstance(grader, MultiGrader):
                raise ValueError(f"{name!r} is a multi grader inside another: put them into one")
        try:
            self.formula()
        except FormulaError as error:
            raise ValueError(f"calculate_output: {error}") from None
        return self

    def formula(self) -> Formula:
        """The checked formula."""
        return parse_formula(self.calculate_output, self.graders)

    @property
    def needs_reference_answer(self) -> bool:
        """Whether one of its graders needs the row's `reference_answer`."""
        return any(getattr(g, "needs_reference_answer", False) for g in self.graders.values())

    def concurrency(self) -> int:
        """That of the grader that bears least; one of another package bears 1 unless it says."""
        return min(
            grader.concurrency() if isinstance(grader, Grader) else 1
            for grader in self.graders.values()
        )

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        grades: dict[str, Grade] = {}
        for name, grader in self.graders.items():
            try:
                grades[name] = grade_with(grader, problem, rollout)
            except GraderError as error:
                error.grader_name = name
                raise
        rewards = {name: grade.reward for name, grade in grades.items()}
        usage: dict[str, TokenUsage] = {}
        for grade in grades.values():
            for model, spent in grade.usage.items():
                usage[model] = usage.get(model, TokenUsage()) + spent
        sampled = [g.sampled_model_name for g in grades.values() if g.sampled_model_name]
        return Grade(
            self.formula().value(rewards),
            format_error=any(grade.format_error for grade in grades.values()),
            details={
                f"{name}/{key}": value
                for name, grade in grades.items()
                for key, value in grade.details.items()
            },
            sub_rewards=rewards,
            usage=usage,
            sampled_model_name=sampled[0] if sampled else None,
        )


def _part(what: str, raw: Any) -> BaseModel:
    """One of its graders. Raises ValueError for a multi grader before looking into it: they could
    stand in each other without end."""
    if isinstance(raw, dict) and raw.get("type") == "multi":
        raise ValueError(f"{what} is a multi grader inside another: put them into one")
    return parse_grader(raw)
