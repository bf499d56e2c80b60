"""The programmatic solver: families it knows, verified solutions, counted rejections."""

import math

import pytest

from rollout.types import Verdict
from rollout.verifiers.answer import AnswerVerifier
from rollout.verifiers.base import passes
from rollout.verifiers.registry import parse_grader
from train.data import Row
from train.experts.families import solve
from train.experts.solver import UnknownFamilyError, solve_rows, with_solution


def row(problem: str, answer: str | None = None, line: int = 1) -> Row:
    """A row that holds a problem."""
    item = {} if answer is None else {"reference_answer": answer}
    return Row(f"train:{line}", ({"role": "user", "content": problem},), answer, item=item)


@pytest.mark.parametrize(
    ("problem", "steps", "answer"),
    [
        ("9037:1sr,2li", ("1sr=7390", "2li=4018"), "4018"),
        ("4 - 1 - 7 =", ("4 - 1 = 3", "3 - 7 = -4", "-4"), "-4"),
        (
            "State the final answer to the following arithmetic problem: 57 + 87 + 70 =",
            ("57 + 87 = 144", "144 + 70 = 214", "214"),
            "214",
        ),
        ("-2 + 5 = ?", ("-2 + 5 = 3", "3"), "3"),
        (
            "Find the Greatest Common Divisor (GCD) of these numbers: 856, 174. Give only the GCD "
            "as your final answer.",
            (
                "856 = 4 * 174 + 160",
                "174 = 1 * 160 + 14",
                "160 = 11 * 14 + 6",
                "14 = 2 * 6 + 2",
                "6 = 3 * 2 + 0",
                "2",
            ),
            "2",
        ),
    ],
)
def test_a_known_family_is_solved_step_by_step(problem, steps, answer):
    solution = solve(problem)
    assert solution is not None
    assert (solution.steps, solution.answer) == (steps, answer)
    assert len(solution.thoughts) in (0, len(steps))


@pytest.mark.parametrize(
    "problem",
    [
        "What is the capital of France?",
        "9037:1sx",  # no such operation
        "9037:2sr",  # lines are numbered from 1
        "903:1sr",
        "2 + x =",
        "12",
        "3 * 4 + 1",
        "phone: 555-123 =",
        "4 - 1",
    ],
)
def test_a_problem_of_no_known_family_is_not_guessed_at(problem):
    assert solve(problem) is None


@pytest.mark.parametrize("name", ["chain_sum", "gcd"])
def test_every_problem_that_reasoning_gym_draws_is_solved_with_its_own_answer(name):
    from rollout.verifiers.gym_import import reasoning_gym

    entries = list(reasoning_gym.create_dataset(name, size=50, seed=3))
    rows = [row(e["question"], e["answer"], line=i) for i, e in enumerate(entries, start=1)]
    solved = solve_rows(rows, grader=AnswerVerifier())
    assert (len(solved.solutions), solved.num_rejected, solved.num_unknown) == (50, 0, 0)


def test_a_wrong_reference_answer_rejects_the_solution_and_counts_it():
    rows = [row("9037:1sr,2li", "4018", 1), row("9037:1sr,2li", "4019", 2), row("hello", "x", 3)]
    solved = solve_rows(rows)
    assert list(solved.solutions) == ["train:1"]
    assert (solved.num_rejected, solved.num_unknown) == (1, 1)
    assert "line 2: its answer '4018' is not the reference answer '4019'" in solved.describe()


@pytest.mark.parametrize("protocol", ["single", "stepwise"])
def test_a_solution_that_the_grader_does_not_accept_is_rejected_with_its_reason(protocol):
    rows = [row("9037:1sr,2li", "4018")]
    right, wrong = AnswerVerifier(pattern=r"=(\d{4})$"), AnswerVerifier()
    assert len(solve_rows(rows, grader=right, protocol=protocol).solutions) == 1
    rejected = solve_rows(rows, grader=wrong, protocol=protocol)
    assert (len(rejected.solutions), rejected.num_rejected) == (0, 1)
    assert "'2li=4018'" in rejected.reasons[0]


def test_the_seed_draws_which_rows_are_solved():
    rows = [row(f"{n} + 1 =", line=n) for n in range(1, 60)]
    drawn = [set(solve_rows(rows, 5, seed=seed).solutions) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 5


def test_rows_of_no_known_family_are_refused_with_what_to_do():
    with pytest.raises(UnknownFamilyError, match=r"digit_programs.*expert_steps"):
        solve_rows([row("Who wrote Faust?", "Goethe")])


def test_a_solved_row_carries_steps_thoughts_and_the_answer_that_it_lacked():
    problem = row("9037:1sr,2li")
    solution = solve(problem.problem_text)
    assert solution is not None
    whole = with_solution(problem, solution)
    assert (whole.reference_answer, whole.expert_steps) == ("4018", ("1sr=7390", "2li=4018"))
    assert len(whole.expert_thoughts) == 2
    assert whole.item["reference_answer"] == "4018"
    assert with_solution(problem, solution, steps=False).expert_steps == ()


def test_a_solution_passes_where_an_evaluation_would_call_it_solved():
    """One rule for both, on the grader's own scale: above 5 of 10, not above 0.5."""

    class OfTen:
        range = (0.0, 10.0)
        reward = 5.0

        def verify(self, problem, rollout) -> Verdict:
            return Verdict(self.reward)

    grader, one = OfTen(), row("9037:1sr,2li")
    for reward, solved in ((5.0, 0), (5.1, 1), (0.9, 0), (math.nan, 0), (math.inf, 0)):
        grader.reward = reward
        assert len(solve_rows([one], grader=grader).solutions) == solved, reward
        assert passes(grader, reward) == bool(solved)


@pytest.mark.parametrize(
    "problem",
    [
        "Which is NOT the Greatest Common Divisor (GCD) of these numbers: 8, 12. Give all.",
        "Find the Greatest Common Divisor (GCD) of these numbers: 8, 12. Give half of it.",
        "Negate the result of this arithmetic problem: 4 + 5 =",
        "Write in words the answer of the arithmetic problem: 4 + 5 = ?",
    ],
)
def test_a_sentence_that_asks_for_something_else_is_not_solved(problem):
    assert solve(problem) is None


def test_the_grader_decides_and_not_the_answers_text():
    halves = row("4 - 1 - 7 =", "-4.0")
    assert solve_rows([halves]).num_rejected == 1, "nobody says that -4.0 is -4"
    by_math = parse_grader({"type": "math"})
    assert solve_rows([halves], grader=by_math).solutions["train:1"].answer == "-4"
