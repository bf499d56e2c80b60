"""Compares two texts exactly: equal, different, or contained, with or without case."""

from typing import Literal

from pydantic import field_validator

from rollout.types import Problem, Rollout
from rollout.verifiers.base import Grade, Grader, sample_of
from rollout.verifiers.templates import Template, render_text


class StringCheckGrader(Grader):
    """Scores 1 when the operation holds between `input` and `reference`, else 0.

    `like` asks whether the input contains the reference, `ilike` the same without case. An empty
    reference is contained in everything, so `like` and `ilike` never hold for one.
    """

    type: Literal["string_check"] = "string_check"
    name: str = "string_check"
    input: Template
    reference: Template
    operation: Literal["eq", "ne", "like", "ilike"]

    @field_validator("operation", mode="before")
    @classmethod
    def _old_spelling(cls, operation: object) -> object:
        return "ne" if operation == "neq" else operation  # both stand in the contract

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        sample = sample_of(rollout)
        text = render_text(self.input, problem.item, sample)
        reference = render_text(self.reference, problem.item, sample)
        if self.operation == "eq":
            return Grade(float(text == reference))
        if self.operation == "ne":
            return Grade(float(text != reference))
        if self.operation == "ilike":
            text, reference = text.casefold(), reference.casefold()
        return Grade(float(bool(reference) and reference in text))
