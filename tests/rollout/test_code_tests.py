"""Code tests: which program is judged, what passes, whose fault a failure is."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import ValidationError

from rollout.types import Problem, Rollout, Turn
from rollout.verifiers.code_tests import (
    CodeTestsVerifier,
    ReferenceSolutionError,
    UnitTestsError,
    extract_program,
)

ADD = "a, b = map(int, input().split())\nprint(a + b)"
ADD_TESTS = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5\n", "output": "10"}]


@dataclass(frozen=True)
class Row:
    id: str
    item: dict[str, Any] = field(default_factory=dict)


def rollout(text: str, finish="end") -> Rollout:
    return Rollout("train:1", (Turn((), (), (), text, finish, ()),))


def verdict(text: str, tests: Any, finish="end", **settings):
    problem = Problem("train:1", "", item={"unit_tests": tests})
    return CodeTestsVerifier(**settings).verify(problem, rollout(text, finish))


def fenced(program: str) -> str:
    return f"<think>hm</think>Here it is:\n```python\n{program}\n```\nDone."


def function_test(expected: Any, *args: Any, name: str = "f", **kwargs: Any) -> dict[str, Any]:
    return {"function": name, "args": list(args), "kwargs": kwargs, "expected": expected}


def test_a_program_that_passes_every_test_scores_one():
    result = verdict(fenced(ADD), ADD_TESTS)
    assert result.reward == 1.0
    assert result.details == {"tests": 2.0, "tests_passed": 2.0, "limits_exceeded": 0.0}


def test_a_program_that_fails_one_test_scores_zero_or_the_share_that_it_passes():
    program = fenced("input()\nprint(3)")
    assert verdict(program, ADD_TESTS).reward == 0.0
    assert verdict(program, ADD_TESTS, fraction=True).reward == 0.5


def test_the_fraction_goes_on_after_a_failure():
    program = fenced("a, b = map(int, input().split())\nassert a > 1\nprint(a + b)")
    assert verdict(program, ADD_TESTS, fraction=True).reward == 0.5


def test_functions_are_called_with_arguments_and_keywords():
    tests = [function_test([3, "x"], 1, 2, s="x"), function_test([0, ""], 0, 0)]
    assert verdict(fenced("def f(a, b, s=''): return (a + b, s)"), tests).reward == 1.0


@pytest.mark.parametrize(
    ("returned", "expected"),
    [("True", 1), ("1", True), ("1.0", 1), ("'1'", 1), ("None", 0), ("[1, 2]", [2, 1])],
)
def test_a_result_of_another_type_or_value_does_not_pass(returned, expected):
    assert verdict(fenced(f"def f(): return {returned}"), [function_test(expected)]).reward == 0.0


def test_white_space_at_the_ends_of_lines_and_output_does_not_count():
    test = [{"input": "", "output": "a\n b"}]
    assert verdict("print('a  \\n b\\n\\n')", test).reward == 1.0
    assert verdict("print('a\\n\\n b')", test).reward == 0.0
    assert verdict("print('a\\nb')", test).reward == 0.0


def test_the_right_output_before_a_crash_does_not_pass():
    test = [{"input": "", "output": "a"}]
    assert verdict("print('a'); raise ValueError", test).reward == 0.0
    assert verdict("print('a'); exit(1)", test).reward == 0.0
    assert verdict("print('a'); exit(0)", test).reward == 1.0


def test_a_program_that_exceeds_a_limit_scores_zero_and_the_limit_is_counted():
    result = verdict("while True: pass", ADD_TESTS, cpu_s=0.5)
    assert result.reward == 0.0
    assert result.details["limits_exceeded"] == 1.0


def test_a_rollout_that_was_cut_off_or_is_empty_has_no_program():
    for result in (verdict(fenced(ADD), ADD_TESTS, "length"), verdict("<think>x", ADD_TESTS)):
        assert (result.reward, result.format_error) == (0.0, True)


def test_an_absurdly_long_program_scores_zero_without_running():
    assert verdict("#" * 100_001, ADD_TESTS).reward == 0.0


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1\n"),
        ("a\n```\nb\n```\nc\n```py\nd\n```\n", "d\n"),
        ("```\nb\n```\n```py\nopen", "b\n"),
        ("```py\n```", None),
        ("<think>```\na\n```</think>```\nb\n```", "b\n"),
        ("  ", None),
    ],
)
def test_the_program_is_the_last_closed_block_or_the_whole_visible_text(text, program):
    assert extract_program(text) == program


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (None, "unit_tests: Input should be a valid list"),
        ([], "at least 1 item"),
        ([{"input": "x"}], r"unit_tests\.0\.stdin\.output: Field required"),
        ([{"input": "x", "output": 1}], r"unit_tests\.0\.stdin\.output: .*valid string.*got 1"),
        ([{"function": "f()", "expected": 1}], r"unit_tests\.0\.function\.function"),
        ([{"function": "f", "expect": 1}], r"unit_tests\.0\.function\.expected"),
    ],
)
def test_bad_unit_tests_are_the_rows_fault_and_named(tests, message):
    with pytest.raises(UnitTestsError, match=rf"row train:1: .*{message}"):
        verdict(fenced(ADD), tests)


def test_references_that_pass_are_accepted():
    rows = [
        Row("train:1", {"unit_tests": ADD_TESTS, "reference_solution": ADD}),
        Row(
            "train:2", {"unit_tests": [function_test(1)], "reference_solution": "def f(): return 1"}
        ),
    ]
    CodeTestsVerifier().check_references(rows)


def test_a_row_whose_reference_fails_is_named_with_the_test_and_what_happened():
    good = Row("train:1", {"unit_tests": ADD_TESTS, "reference_solution": ADD})
    bad = Row("train:2", {"unit_tests": ADD_TESTS, "reference_solution": "input()\nprint(3)"})
    message = r"row train:2: .*fails unit test 2 of 2: it printed '3\\n', not '10'"
    with pytest.raises(ReferenceSolutionError, match=message):
        CodeTestsVerifier(fraction=True).check_references([good, bad])


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("while True: pass", "exceeded its cpu limit"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(): return 2.0", "returned 2.0, not 2"),
        ("def f(): return {1}", "not JSON serializable"),
    ],
)
def test_a_failing_reference_says_why(program, message):
    row = Row("train:3", {"unit_tests": [function_test(2)], "reference_solution": program})
    with pytest.raises(ReferenceSolutionError, match=message):
        CodeTestsVerifier(cpu_s=0.5).check_references([row])


def test_a_row_without_a_reference_is_refused():
    with pytest.raises(UnitTestsError, match="row train:4: 'reference_solution' is None"):
        CodeTestsVerifier().check_references([Row("train:4", {"unit_tests": ADD_TESTS})])


def test_other_fields_may_hold_the_tests_and_the_reference():
    verifier = CodeTestsVerifier(tests_field="t", reference_field="r")
    verifier.check_references([Row("train:1", {"t": ADD_TESTS, "r": ADD})])
    problem = Problem("train:1", "", item={"t": ADD_TESTS})
    assert verifier.verify(problem, rollout(fenced(ADD))).reward == 1.0


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError, match="timeout"):
        CodeTestsVerifier(timeout=1)  # pyright: ignore[reportCallIssue]
