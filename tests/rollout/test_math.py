"""The math grader accepts no wrong answer, rejects few right ones, and cannot be hung."""

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from graders import problem, rollout

from rollout.verifiers.base import GraderError, InvalidVariableError
from rollout.verifiers.math import COMPARE, MathGrader
from rollout.verifiers.math_text import extract_answer, is_tower, parse_answer
from rollout.verifiers.math_units import canonical_unit
from rollout.verifiers.process import shared_pool

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parent / "math_pairs.jsonl").read_text("utf-8").splitlines()
]
GRADER = MathGrader(deadline_s=30)
DEADLINE_S = 3.0


def reward(gold: str, answer: str, grader: MathGrader = GRADER) -> float:
    """The reward for a one-turn answer."""
    return grader.verify(problem(gold), rollout(answer)).reward


def test_the_fixed_set_is_as_large_and_as_mixed_as_it_should_be():
    equal = Counter(pair["equal"] for pair in PAIRS)
    assert equal[True] >= 120
    assert equal[False] >= 80
    assert len({pair["kind"] for pair in PAIRS}) >= 20
    assert len({(pair["gold"], pair["answer"]) for pair in PAIRS}) == len(PAIRS)


def test_on_the_fixed_set_nothing_wrong_is_accepted_and_few_right_answers_are_rejected():
    wrong = [p for p in PAIRS if reward(p["gold"], p["answer"]) != float(p["equal"])]
    accepted = [p for p in wrong if not p["equal"]]
    rejected = [p for p in wrong if p["equal"]]
    print(f"{len(PAIRS)} pairs; false accepts: {accepted}; false rejects: {rejected}")
    assert accepted == []
    assert len(rejected) <= 0.05 * sum(p["equal"] for p in PAIRS), rejected


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x", "X"),  # math-verify lowers the case of variables
        ("10^{-20}", "10^{-30}"),  # and takes small differences for zero
        ("0", "0.0000000001"),
        (r"\frac{1}{3}", "0.333333"),  # and rounds to six digits
        ("5", r"5 + 10^{-35}"),
        ("5", "5m"),  # and drops letters that look like units
        (r"5 \text{ m}", "5 g"),
        ("1010_2", "1010"),  # and drops the base
        ("7", "6 = 7"),
        (r"\frac{2}{3}", "2 1/3"),
        (r"x \ge 0", r"x \ge 0 \text{ or } x < 0"),
        (r"\{(1,2),(3,4)\}", r"\{(2,1),(3,4)\}"),
        ("5", r"\frac{0}{0}"),
        (r"|x|", "x"),
        ("12", r"12\%"),
        ("2.5", "2,5"),
    ],
)
def test_what_the_library_alone_would_let_through_is_refused(gold, answer):
    assert reward(gold, answer) == 0.0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"5\text{ m}", "5 m"),
        (r"0.\overline{3}", r"\frac13"),
        (r"\mathbb{R}", r"\mathbb{R}"),
        (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "-2"),
        (r"\sum_{k=1}^{3} k", "6"),
        ("x=2, y=3", "y=3, x=2"),
        (r"x < -1 \text{ or } x > 1", r"(-\infty,-1)\cup(1,\infty)"),
        ("60 square meters", r"60\text{ m}^2"),
    ],
)
def test_further_right_answers_are_accepted(gold, answer):
    assert reward(gold, answer) == 1.0


def test_a_tolerance_accepts_rounded_numbers_and_only_those_within_it():
    grader = MathGrader(rel_tolerance=1e-3, deadline_s=30)
    assert reward(r"\pi", "3.1416", grader) == 1.0
    assert reward(r"\pi", "3.15", grader) == 0.0
    assert reward("0", "0.0001", grader) == 0.0


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"\boxed{1} no, \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1", None),
        (r"\boxed{ }", None),
        ("The answer is 7. I am sure.", "7"),
        ("**Final Answer:**\n\n3.5", "3.5"),
        ("some words\n\n x = 3 \n", "x = 3"),
        ("", None),
        ("The answer is", None),
    ],
)
def test_the_answer_is_read_where_the_solution_states_it(solution, answer):
    assert extract_answer(solution) == answer


def test_with_boxed_only_an_answer_outside_a_box_is_a_format_error():
    verdict = MathGrader(boxed_only=True).verify(problem("7"), rollout("The answer is 7"))
    assert (verdict.reward, verdict.format_error) == (0.0, True)


def test_thoughts_and_earlier_turns_are_not_read_and_a_cut_off_rollout_scores_nothing():
    assert GRADER.verify(problem("7"), rollout("<think>7</think> 8")).reward == 0.0
    assert GRADER.verify(problem("7"), rollout("7", "8")).reward == 0.0
    assert GRADER.verify(problem("7"), rollout("8", "<think>x</think>7")).reward == 1.0
    cut = GRADER.verify(problem("7"), rollout("7", finish="length"))
    assert (cut.reward, cut.format_error, cut.details) == (0.0, True, {"truncated": 1.0})


def test_an_answer_that_cannot_be_read_is_a_format_error_and_a_wrong_one_is_not():
    assert GRADER.verify(problem("7"), rollout(r"\boxed{\frac{1}{}")).format_error
    assert not GRADER.verify(problem("7"), rollout("8")).format_error


def test_the_reference_may_come_from_a_field_of_the_row():
    grader = MathGrader(reference="{{ item.solution.value }}", deadline_s=30)
    assert grader.verify(problem(solution={"value": 0.5}), rollout("1/2")).reward == 1.0
    with pytest.raises(InvalidVariableError, match=r"item.solution.value.*item has no 'solution'"):
        grader.verify(problem(), rollout("1/2"))


def test_a_problem_without_a_reference_is_an_error_that_names_it_and_the_fix():
    with pytest.raises(InvalidVariableError, match="train:7 has no reference answer: give"):
        GRADER.verify(problem(), rollout("7"))


HANGING = [
    "9^{9^{9^{9}}}",
    "9^9^9^9^9",
    "99999999!",
    "((((((10!)!)!)!)!)!)!",
    "10!!!!",
    "x" * 100_000,
    "9" * 100_000,
    "(" * 50_000 + ")" * 50_000,
    r"\boxed{" * 15_000,
    r"\frac{" * 100 + "1" + "}{2}" * 100,
    "(x+1)^{99999}",
    "((9^{99999})^{9999})^{999}",
    r"\sum_{n=1}^{100000} \frac{1}{n!}",
    r"(a+b+c+d+e+f+g)^{60}",
    r"\sin^{9999}(x) + (x+y+z)^{999}",
    r"\binom{999999999}{499999999}",
    r"\int e^{\sin(x^9)} \cos(\ln(x)) dx",
]


@pytest.mark.parametrize("answer", HANGING, ids=range(len(HANGING)))
def test_an_answer_that_hangs_scores_nothing_in_time(answer):
    grader = MathGrader(deadline_s=DEADLINE_S)
    started_s = time.monotonic()
    verdict = grader.verify(problem("7"), rollout(answer))
    assert time.monotonic() - started_s < 1.2 * DEADLINE_S
    assert verdict.reward == 0.0


def test_an_overrun_is_a_verdict_that_says_so_and_the_pool_is_whole_after():
    grader = MathGrader(deadline_s=1.0, max_characters=10_000)
    hanging = r"\boxed{" + "+".join(f"(x+{n})^{{999}}" for n in range(300)) + "}"
    for _ in range(3):
        verdict = grader.verify(problem("(x+y+1)^{999}"), rollout(hanging.replace("x+1)", "x+y)")))
        assert (verdict.reward, verdict.details) == (0.0, {"timeout": 1.0})
    pool = shared_pool(COMPARE)
    assert len(pool.pids()) == pool._num_wanted
    assert reward("1/2", "0.5") == 1.0


def test_a_reference_that_hangs_is_the_graders_fault_and_no_verdict():
    grader = MathGrader(deadline_s=1.0)
    with pytest.raises(GraderError, match=r"reference.*train:7.*ran longer than"):
        grader.verify(problem(r"((9^{99999})^{9999})^{999}"), rollout("7"))


def test_it_works_off_the_main_thread():
    rewards = []
    threads = [
        threading.Thread(target=lambda: rewards.append(reward(r"\frac{1}{2}", "0.5")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rewards == [1.0, 1.0, 1.0]


def test_powers_that_are_no_towers_are_read():
    assert not is_tower("x^{2^{3}} + e^{x^2}")
    assert is_tower("2^{3^{4^5}}")


def test_units_have_one_spelling():
    assert canonical_unit("Kilometers / hour") == canonical_unit("km/h") == canonical_unit("kmh")
    assert canonical_unit("square meters") == canonical_unit("m^{2}") == "m^2"


def test_structure_is_kept():
    assert parse_answer("(0, 1]").marks == ("(", "]")
    assert parse_answer(r"\{1, 2\}").kind == "set"
    assert [item.text for item in parse_answer("(1,(2,3))").items] == ["1", "(2,3)"]
