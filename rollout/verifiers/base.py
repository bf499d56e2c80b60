"""What every grader shares: how it sees a sample, what it returns, how it fails.

A grader of this package implements `grade`; `verify` makes it a `rollout.types.Verifier`. It
judges only what the policy finished: a rollout that was cut off has not answered. What the sample
causes is a reward of 0; what the grader or its infrastructure causes is a `GraderError`, which is
no verdict. Heavy libraries are imported inside functions, so that a specification stays light.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rollout.steps import visible_text
from rollout.types import Problem, Rollout, Verdict

# How long one verdict may take. Bounded, since a verifier is kept busy meanwhile.
Seconds = Annotated[float, Field(gt=0, le=600)]


class GraderError(RuntimeError):
    """The grader gave no verdict. `flag` is the key of a run's `errors` that it sets."""

    flag: ClassVar[str] = "other_error"
    # The key that holds the text beside the flag, where the contract has one.
    details_key: ClassVar[str | None] = None
    grader_name: str | None = None  # which of a multi grader's graders it was


class FormulaError(GraderError):
    """A formula that cannot be parsed, or has no finite value for these scores."""

    flag = "formula_parse_error"


class InvalidVariableError(GraderError):
    """A template names what the row does not have."""

    flag = "invalid_variable_error"


class UnresponsiveRewardError(GraderError):
    """An endpoint that did not answer, or not with a reward."""

    flag = "unresponsive_reward_error"


class PythonGraderServerError(GraderError):
    """The machinery that runs Python graders failed."""

    flag = "python_grader_server_error"
    details_key = "python_grader_server_error_type"


class PythonGraderRuntimeError(GraderError):
    """A user's Python grader raised, or returned no number."""

    flag = "python_grader_runtime_error"
    details_key = "python_grader_runtime_error_details"


class ModelGraderServerError(GraderError):
    """The judge could not be reached, or answered with an error."""

    flag = "model_grader_server_error"
    details_key = "model_grader_server_error_details"


class ModelGraderRefusalError(GraderError):
    """The judge declined to judge."""

    flag = "model_grader_refusal_error"


class ModelGraderParseError(GraderError):
    """The judge's answer does not have the form that it was asked for."""

    flag = "model_grader_parse_error"


class SampleParseError(Exception):
    """The sample lacks the form that the grader reads: a reward of 0, caught in this package."""

    flag: ClassVar[str] = "sample_parse_error"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens that a judge spent on one grade."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict with what only a grader run reports."""

    reward: float
    format_error: bool = False  # the sample's form was wrong, whatever its content
    truncated: bool = False  # the rollout was cut off and therefore not judged
    details: dict[str, float] = field(default_factory=dict)
    sub_rewards: dict[str, float] = field(default_factory=dict)  # of a multi grader, by name
    usage: dict[str, TokenUsage] = field(default_factory=dict)  # by the judge's model
    sampled_model_name: str | None = None  # as the judge's endpoint names itself

    def verdict(self) -> Verdict:
        """The part that training reads. Raises GraderError when the reward is not finite."""
        details = dict(self.details)
        details |= {f"grader/{name}": reward for name, reward in self.sub_rewards.items()}
        if self.truncated:
            details["truncated"] = 1.0
        for usage in self.usage.values():
            for key in ("prompt_tokens", "completion_tokens"):
                details[key] = details.get(key, 0.0) + getattr(usage, key)
        return Verdict(self.reward, self.format_error, details)


def final_text(rollout: Rollout) -> str:
    """What the policy answered with: the last turn's visible text, as in `AnswerVerifier`."""
    return visible_text(rollout.turns[-1].text)


def output_text(rollout: Rollout) -> str:
    """All that the policy showed: each turn's visible text, joined by newlines."""
    return "\n".join(text for turn in rollout.turns if (text := visible_text(turn.text)))


def parse_json(text: str) -> Any:
    """Strict JSON: no NaN or Infinity. Raises ValueError, also for what is nested too deep."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deep to be read") from None


def sample_of(rollout: Rollout) -> dict[str, Any]:
    """The `sample` that templates and endpoints see.

    `output_text` joins all turns, so that a stepwise rollout is judged as the whole solution that
    a reader sees. `output_json` is None when the text as a whole is no JSON. No protocol here
    calls tools, so `output_tools` is empty.
    """
    text = output_text(rollout)
    try:
        parsed = parse_json(text)
    except ValueError:  # acceptable: most samples are prose; a template that needs it says so
        parsed = None
    message = {"role": "assistant", "content": text}
    return {
        "output_text": text,
        "output_json": parsed,
        "output_tools": [],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


class Grader(BaseModel, ABC):
    """Base of the graders: a frozen record of settings that knows how to grade."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def concurrency(self) -> int:
        """Calls of `grade` that may run at once in threads of one process."""
        return 16

    def grade(self, problem: Problem, rollout: Rollout) -> Grade:
        """Grade a rollout. Raises GraderError when there is no verdict."""
        if not rollout.finished:
            return Grade(0.0, format_error=True, truncated=True)
        try:
            grade = self._grade(problem, rollout)
        except SampleParseError:
            # Acceptable: the policy produced what the grader cannot read.
            return Grade(0.0, format_error=True)
        if not math.isfinite(grade.reward):
            raise GraderError(f"{type(self).__name__} returned {grade.reward!r}, no finite number")
        return grade

    def templates(self) -> list[str]:
        """The templates that it fills in, wherever they stand in `input` and `reference`."""
        return list(_texts(self.model_dump(include={"input", "reference"})))

    @abstractmethod
    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        """Grade a finished rollout. Raises GraderError or SampleParseError."""

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict:
        """Grade as `rollout.types.Verifier` asks for it."""
        return self.grade(problem, rollout).verdict()


def passes(grader: Any, reward: float) -> bool:
    """True when `grader` calls an answer right: above the middle of its scale.

    The scale is the grader's `range` where it states one, 0 to 1 otherwise (a `multi` grader's
    formula included). What is not finite is no verdict, and passes nothing.
    """
    low, high = getattr(grader, "range", None) or (0.0, 1.0)
    return math.isfinite(reward) and reward > low + (high - low) / 2


def _texts(value: Any) -> Iterator[str]:
    """Every string inside nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def grade_with(grader: Any, problem: Problem, rollout: Rollout) -> Grade:
    """Grade with any verifier, one of another package included."""
    if isinstance(grader, Grader):
        return grader.grade(problem, rollout)
    verdict = grader.verify(problem, rollout)
    if not math.isfinite(verdict.reward):
        raise GraderError(f"{type(grader).__name__} returned {verdict.reward!r}, no finite number")
    return Grade(verdict.reward, verdict.format_error, details=dict(verdict.details))
