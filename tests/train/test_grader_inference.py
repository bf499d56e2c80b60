"""The inferred grader is the one that accepts the experts' own solutions."""

import pytest

from rollout.types import Problem
from rollout.verifiers.registry import parse_grader
from train.data import Row
from train.experts.families import Solution
from train.experts.solver import as_rollout
from train.grader_inference import NoGraderError, infer_grader


def row(answer: str | None, *steps: str) -> Row:
    """A row with an answer and expert steps."""
    return Row("train:1", ({"role": "user", "content": "?"},), answer, steps)


CASES = [
    ("the last step is the answer", [row("42", "6 * 7", "42"), row("7", "7")], "answer"),
    ("the last step is the answer, with a full stop", [row("Paris", "Paris.")], "answer"),
    ("after =", [row("4018", "1sr=7390", "2li=4018")], "answer"),
    ("after = in words", [row("x y", "a = x y")], "answer"),
    ("after the answer is", [row("B", "So the answer is B.")], "answer"),
    ("after Answer:", [row("blue", "Answer: blue")], "answer"),
    ("after ####", [row("72", "48 + 24 #### 72")], "answer"),
    ("after an arrow", [row("cab", "abc -> cab")], "answer"),
    ("after a colon", [row("red", "Colour: red")], "answer"),
    ("after is", [row("green", "The colour is green")], "answer"),
    ("boxed", [row("3", "Thus \\boxed{3}")], "math"),
    ("numbers without steps", [row("3"), row("-1,200.5"), row("3/4"), row("50%")], "math"),
    ("LaTeX without steps", [row("\\frac{1}{2}"), row("x^2")], "math"),
    ("texts without steps", [row("Paris"), row("3")], "answer"),
]


@pytest.mark.parametrize(("rows", "kind"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_rows_decide_the_grader_and_the_reason_names_it(rows, kind):
    inferred = infer_grader(rows)
    assert inferred.grader["type"] == kind
    assert inferred.reason.startswith(f"{kind}: ")


@pytest.mark.parametrize("rows", [c[1] for c in CASES if c[1][0].expert_steps])
def test_the_inferred_grader_accepts_the_experts_and_rejects_another_answer(rows):
    grader = parse_grader(infer_grader(rows).grader)
    for each in rows:
        rollout = as_rollout(each.id, Solution("", each.expert_steps, ""), "stepwise")
        right = Problem(each.id, "?", reference_answer=each.reference_answer)
        wrong = Problem(each.id, "?", reference_answer="17 elephants")
        assert grader.verify(right, rollout).reward == 1.0
        assert grader.verify(wrong, rollout).reward == 0.0


def test_rows_with_steps_are_heard_before_rows_without():
    assert "pattern" in infer_grader([row("5"), row("4018", "2li=4018")]).grader


def test_experts_who_write_the_answer_in_no_common_form_leave_it_to_the_answers_form():
    assert infer_grader([row("3", "one", "three")]).grader == {"type": "math"}


def test_without_any_answer_the_message_says_what_to_add():
    with pytest.raises(NoGraderError, match="add `reference_answer`"):
        infer_grader([row(None, "a step")])
