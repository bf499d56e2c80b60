"""Formulas are computed as written, and nothing else in them is ever run."""

import math

import pytest

from rollout.verifiers.base import FormulaError
from rollout.verifiers.formula import parse_formula

SCORES = {"a": 0.5, "b": 0.25, "zero": 0.0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 0.5),
        ("0.7 * a + 0.3 * b", 0.425),
        ("a ^ 2", 0.25),
        ("2 ^ 3 ^ 2", 512.0),  # from the right
        ("-a ^ 2", -0.25),
        ("(a - b) / b", 1.0),
        ("2 * 3 ^ 2", 18.0),
        ("min(a, b, 1)", 0.25),
        ("max(a, b)", 0.5),
        ("abs(b - a)", 0.25),
        ("floor(a) + ceil(a)", 1.0),
        ("exp(zero)", 1.0),
        ("sqrt(b)", 0.5),
        ("log(exp(2))", 2.0),
        (" 1 ", 1.0),
    ],
)
def test_a_formula_has_the_value_worked_by_hand(text, value):
    assert parse_formula(text, SCORES).value(SCORES) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.__class__",
        "a if b else 1",
        "[a]",
        "lambda: a",
        "a and b",
        "a < b",
        "a ** 2",
        "a % b",
        "a // b",
        "min(a, key=b)",
        "min(*a)",
        "a; b",
        "",
        "a +",
        "'x'",
        "True",
        "2j",
        "(x := 3)",
        "f'{a}'",
        "sqrt(a, b)",
        "min()",
        "pow(a, b)",
        "1e400",
        "9" * 400,
        "-" * 500 + "a",
        "+".join(["a"] * 500),
        "a" * 3000,
        "unknown + a",
    ],
)
def test_what_is_no_formula_is_refused_when_it_is_read(text):
    with pytest.raises(FormulaError):
        parse_formula(text, SCORES)


def test_an_unknown_name_and_an_unknown_function_are_answered_with_the_choices():
    with pytest.raises(FormulaError, match="uses 'c'; the graders are a, b, zero"):
        parse_formula("a + c", SCORES)
    with pytest.raises(FormulaError, match="no function 'sin'; choose min, max"):
        parse_formula("sin(a)", SCORES)


@pytest.mark.parametrize(
    "text",
    ["a / zero", "log(zero)", "sqrt(0 - a)", "exp(1000)", "9 ^ 9 ^ 9", "(0 - a) ^ a", "zero ^ -1"],
)
def test_a_formula_without_a_finite_value_is_an_error_and_no_number(text):
    with pytest.raises(FormulaError):
        parse_formula(text, SCORES).value(SCORES)


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(FormulaError):
        parse_formula("a + 1", SCORES).value({"a": math.nan})
