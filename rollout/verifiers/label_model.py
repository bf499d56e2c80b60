"""A model gives the sample one of several labels; some of them pass."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rollout.types import Problem, Rollout
from rollout.verifiers.base import Grade, ModelGraderParseError
from rollout.verifiers.judge import JudgeGrader


class LabelModelGrader(JudgeGrader):
    """Scores 1 when the judge's label is among `passing_labels`, else 0."""

    type: Literal["label_model"] = "label_model"
    name: str = "label_model"
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    passing_labels: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _labels_fit(self) -> "LabelModelGrader":
        unknown = [label for label in self.passing_labels if label not in self.labels]
        if unknown:
            raise ValueError(
                f"passing_labels holds {unknown[0]!r}, which is not in labels: {list(self.labels)}"
            )
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels names one label twice: {list(self.labels)}")
        return self

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        schema = {
            "type": "object",
            "properties": {
                "reasoning": {"type": "string", "description": "Why, in a few sentences."},
                "label": {"type": "string", "enum": list(self.labels)},
            },
            "required": ["reasoning", "label"],
            "additionalProperties": False,
        }
        answer, usage, model = self.ask(problem, rollout, schema)
        if answer["label"] not in self.labels:
            raise ModelGraderParseError(
                f"the judge's label is {answer['label']!r}, none of {list(self.labels)}"
            )
        passes = answer["label"] in self.passing_labels
        return Grade(float(passes), usage={self.model: usage}, sampled_model_name=model)
