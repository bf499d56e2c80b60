"""What every grader shares: what becomes a reward, what a format error, and what no verdict."""

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from graders import problem, rollout
from pydantic import ValidationError

from rollout.types import Problem, Rollout, Verdict
from rollout.verifiers.base import (
    Grade,
    Grader,
    GraderError,
    SampleParseError,
    TokenUsage,
    final_text,
    grade_with,
    output_text,
)


class Fixed(Grader):
    """Gives the grade it was made with, or raises."""

    grade_given: Any = None
    weight: float = 1.0
    input: Any = None
    reference: Any = None
    other: Any = None

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        assert (type(problem), type(rollout)) == (Problem, Rollout)
        if isinstance(self.grade_given, type):
            raise self.grade_given("as asked")
        return self.grade_given


def test_a_grade_becomes_a_verdict_with_its_parts_as_details():
    grade = Grade(
        0.75,
        format_error=True,
        details={"near": 0.5},
        sub_rewards={"style": 0.25},
        usage={"judge": TokenUsage(10, 2), "other": TokenUsage(5, 1)},
    )
    assert grade.verdict() == Verdict(
        0.75,
        format_error=True,
        details={
            "near": 0.5,
            "grader/style": 0.25,
            "prompt_tokens": 15.0,
            "completion_tokens": 3.0,
        },
    )
    assert grade.details == {"near": 0.5}, "the grade itself stays as it was"


def test_a_plain_grade_has_no_details_and_is_no_format_error():
    assert Grade(1.0).verdict() == Verdict(1.0, format_error=False, details={})


def test_a_cut_off_rollout_scores_nothing_and_says_so_without_being_read():
    grade = Fixed(grade_given=GraderError).grade(problem(), rollout("a", finish="length"))
    assert grade == Grade(0.0, format_error=True, truncated=True)
    assert grade.verdict().details == {"truncated": 1.0}


def test_a_sample_that_cannot_be_parsed_is_a_format_error_but_not_a_cut_off_one():
    grade = Fixed(grade_given=SampleParseError).grade(problem(), rollout("a"))
    assert grade == Grade(0.0, format_error=True, truncated=False)
    assert grade.verdict().details == {}


def test_a_graders_own_fault_is_no_verdict():
    with pytest.raises(GraderError, match="as asked"):
        Fixed(grade_given=GraderError).verify(problem(), rollout("a"))


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_no_verdict(reward):
    with pytest.raises(GraderError, match=r"Fixed returned -?(nan|inf), no finite number"):
        Fixed(grade_given=Grade(reward)).grade(problem(), rollout("a"))


def test_verify_gives_the_grade_as_a_verdict():
    grader = Fixed(grade_given=Grade(0.5, details={"x": 1.0}))
    assert grader.verify(problem(), rollout("a")) == Verdict(0.5, details={"x": 1.0})


def test_a_grader_may_be_called_from_sixteen_threads_at_once_unless_it_says_otherwise():
    assert Fixed().concurrency() == 16


def test_templates_are_found_wherever_they_stand_in_input_and_reference_and_nowhere_else():
    nested = [{"role": "user", "content": "{{ item.a }}"}, ["b", 3, None]]
    grader = Fixed(input=nested, reference={"k": "c"}, other="d")
    assert grader.templates() == ["user", "{{ item.a }}", "b", "c"]


def test_graders_are_frozen_and_refuse_unknown_fields():
    with pytest.raises(ValidationError, match="frozen"):
        Fixed().other = 1
    with pytest.raises(ValidationError, match="nonsense"):
        Fixed(nonsense=1)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_setting_that_is_no_finite_number_is_refused(weight):
    with pytest.raises(ValidationError, match="finite"):
        Fixed(weight=weight)


def test_grades_and_usage_are_frozen():
    with pytest.raises(FrozenInstanceError):
        Grade(1.0).reward = 0.0
    with pytest.raises(FrozenInstanceError):
        TokenUsage().prompt_tokens = 1


def test_usage_adds_up():
    assert TokenUsage(1, 2) + TokenUsage(10, 20) == TokenUsage(11, 22)
    assert TokenUsage() == TokenUsage(0, 0)


class Foreign:
    """A verifier of another package: not a `Grader`."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict:
        """Return the verdict it was made with."""
        assert (type(problem), type(rollout)) == (Problem, Rollout)
        return self.verdict


def test_any_verifier_can_be_graded_with():
    verdict = Verdict(0.5, format_error=True, details={"x": 2.0})
    grade = grade_with(Foreign(verdict), problem(), rollout("a"))
    assert grade == Grade(0.5, format_error=True, details={"x": 2.0})
    grade.details["y"] = 1.0
    assert verdict.details == {"x": 2.0}
    own = Grade(1.0, truncated=True)
    assert grade_with(Fixed(grade_given=own), problem(), rollout("a")) is own
    with pytest.raises(GraderError, match="Foreign returned nan, no finite number"):
        grade_with(Foreign(Verdict(math.nan)), problem(), rollout("a"))


def test_the_final_text_is_the_last_turns_and_the_output_all_turns_that_showed_something():
    sample = rollout("<think>a</think>one", "<think>b</think>", "<think>c</think> two ")
    assert final_text(sample) == "two"
    assert output_text(sample) == "one\ntwo"
