"""A teacher's text becomes steps and an answer, or is told what is wrong with it."""

import re
import time

import pytest

from train.data import Row
from train.experts.draft import DraftError, ask, ends_with_answer, read_draft, step_fault

GOOD = """<think>maybe 57?</think>Let us see.

1. **Add the first two**: 12 + 45 = 57
2. **Take away**: 57 - 8 = 49

Answer: **49**"""


def test_numbered_steps_and_the_answer_line_are_read():
    solution = read_draft(GOOD)
    assert solution.steps == ("Add the first two: 12 + 45 = 57", "Take away: 57 - 8 = 49")
    assert (solution.answer, solution.family) == ("49", "teacher")
    assert ends_with_answer(solution).steps[2:] == ("49",)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("Answer: 7", "7"),
        ("**Final answer:** 7.", "7"),
        ("The answer is \\boxed{7}", "7"),
        ("answer = $x+1$", "x+1"),
        ("Answer: 3.5", "3.5"),
        ("Answer: 7\nThe answer was checked.", "7"),
        ("Answer: 7\nThe answer is right.", "7"),
        ("**Answer**: 7", "7"),
    ],
)
def test_answers_come_without_their_marks(line, answer):
    assert read_draft(f"1. one\n2. two\n{line}").answer == answer


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1. one\n2. two", "there is no line `Answer"),
        ("no steps here\nAnswer: 3", "has no numbered steps"),
        ("1. one\n3. three\nAnswer: 3", "step 3 follows step 1"),
        ("<think>1. one\nAnswer: 3", "there is no line `Answer"),
        ("1. 12 + 45 = 58\nAnswer: 58", "step 1 says 12 + 45 = 58, which is false"),
        ("1. " + "x" * 5000 + "\nAnswer: 3", "step 1 has 5000 characters"),
    ],
)
def test_what_is_wrong_with_a_draft_is_said(text, complaint):
    with pytest.raises(DraftError, match=complaint.replace("+", r"\+")):
        read_draft(text)


@pytest.mark.parametrize(
    ("step", "value"),
    [
        ("2 + 3 * 4 = 15", "14"),
        ("10 - -3 = 7", "13"),
        ("-5 + 2 = 3", "-3"),
        ("2 \u00d7 3 - 4 * 5 = 0", "-14"),
        ("So: 7 - 9 = 2.", "-2"),
    ],
)
def test_a_false_equation_is_named_without_its_value_and_a_true_one_passes(step, value):
    fault = step_fault(step) or ""
    assert fault.endswith("which is false")
    assert value not in fault.removesuffix("which is false").split("says ")[1].split()
    assert step_fault(re.sub(r"= -?\d+", f"= {value}", step)) is None


@pytest.mark.parametrize(
    "step", ["2 + 3 * 4 = 14", "x + 3 = 5", "1.5 + 2 = 3.5", "12 = 12", "a 3 + 4 = 8 b", "7"]
)
def test_what_is_true_or_no_plain_equation_passes(step):
    assert step_fault(step) is None


def test_every_term_of_a_long_sum_counts():
    assert step_fault("2 + 3 + 4 = 9") is None
    assert step_fault("2 + 3 * 4 - 5 = 9") is None
    assert step_fault("2 + 3 + 4 = 7") == "says 2 + 3 + 4 = 7, which is false"


def test_a_line_of_blanks_takes_no_time():
    started_s = time.monotonic()
    with pytest.raises(DraftError, match="no line"):
        read_draft("1. one\n2. two\nanswer" + " " * 200_000 + "x")
    assert time.monotonic() - started_s < 2.0


def test_the_rows_own_system_message_is_part_of_the_one_that_is_sent():
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"})
    sent = ask(Row("r", messages), ["a passage"])
    assert [m["role"] for m in sent] == ["system", "user"]
    assert "a passage" in sent[0]["content"]
    assert sent[0]["content"].endswith("Be brief.")
