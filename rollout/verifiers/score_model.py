"""A model scores the sample with a number in a range."""

import math
from typing import Literal

from pydantic import field_validator

from rollout.types import Problem, Rollout
from rollout.verifiers.base import Grade, ModelGraderParseError
from rollout.verifiers.judge import JudgeGrader


class ScoreModelGrader(JudgeGrader):
    """Scores what the judge says. A score outside `range` is an error: it is not clipped."""

    type: Literal["score_model"] = "score_model"
    name: str = "score_model"
    range: tuple[float, float] = (0.0, 1.0)  # lowest and highest

    @field_validator("range", mode="before")
    @classmethod
    def _may_be_null(cls, value: object) -> object:
        return (0.0, 1.0) if value is None else value

    @field_validator("range")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not (math.isfinite(value[0]) and math.isfinite(value[1]) and value[0] < value[1]):
            raise ValueError(f"{list(value)} is no range: write [lowest, highest]")
        return value

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        low, high = self.range
        schema = {
            "type": "object",
            "properties": {
                "reasoning": {"type": "string", "description": "Why, in a few sentences."},
                "score": {"type": "number", "description": f"From {low} to {high}."},
            },
            "required": ["reasoning", "score"],
            "additionalProperties": False,
        }
        answer, usage, model = self.ask(problem, rollout, schema)
        score = answer["score"]
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise ModelGraderParseError(f"the judge's score is {score!r}, no number")
        if not low <= score <= high:
            raise ModelGraderParseError(f"the judge's score {score} is outside [{low}, {high}]")
        return Grade(float(score), usage={self.model: usage}, sampled_model_name=model)
