"""The quickstart's committed data is what its generator says, and its answers are right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "quickstart"
STEMS = ("train", "valid", "heldout")


def committed(stem: str) -> list[dict]:
    """The rows of a committed file."""
    return [json.loads(line) for line in (FOLDER / f"{stem}.jsonl").read_text().splitlines()]


def problem_of(row: dict) -> str:
    """A row's problem."""
    return row["messages"][-1]["content"]


def run_operation(name: str, digits: list[int]) -> list[int]:
    """The six operations, written a second time from their description."""
    a, b, c, d = digits
    return {
        "r": [d, c, b, a],
        "l": [b, c, d, a],
        "e": [d, b, c, a],
        "s": [b, a, c, d],
        "i": [(x + 1) % 10 for x in digits],
        "c": [9 - x for x in digits],
    }[name]


def solve(problem: str) -> tuple[list[str], list[str], str]:
    """Steps, thoughts and answer of a problem."""
    start, program = problem.split(":")
    state, steps, thoughts = [int(x) for x in start], [], []
    for line in program.split(","):
        number, first, second = line
        middle = run_operation(first, state)
        state = run_operation(second, middle)
        thoughts.append(f"{number}:{''.join(map(str, middle))}")
        steps.append(f"{line}={''.join(map(str, state))}")
    return steps, thoughts, "".join(map(str, state))


def test_the_worked_example_of_the_docstring_holds():
    steps, thoughts, answer = solve("9037:1sr,2li")
    assert (steps[0], thoughts[0]) == ("1sr=7390", "1:0937")
    assert answer == "4018"  # 7390, rotated left 3907, one added 4018


def test_no_problem_stands_twice_in_the_three_files():
    everything = [problem_of(row) for stem in STEMS for row in committed(stem)]
    assert len(everything) == 2048 + 200 + 500
    assert len(set(everything)) == len(everything)


def test_at_most_48_rows_carry_expert_steps_and_all_of_them_are_for_training():
    experts = {s: sum("expert_steps" in row for row in committed(s)) for s in STEMS}
    assert 0 < experts["train"] <= 48
    assert experts["valid"] == experts["heldout"] == 0


@pytest.mark.parametrize("stem", STEMS)
def test_every_reference_answer_follows_from_the_program(stem):
    for row in committed(stem):
        steps, thoughts, answer = solve(problem_of(row))
        assert row["reference_answer"] == answer != problem_of(row)[:4], row
        assert row.get("expert_steps", steps) == steps
        assert row.get("expert_thoughts", thoughts) == thoughts


def test_an_experts_last_step_states_the_reference_answer():
    experts = [row for row in committed("train") if "expert_steps" in row]
    assert len(experts) > 0
    for row in experts:
        assert row["expert_steps"][-1].split("=")[1] == row["reference_answer"]


def generate(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the generator from the command line."""
    command = [sys.executable, str(FOLDER / "generate.py"), "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_seed_1_generates_the_committed_files_byte_for_byte(tmp_path):
    done = generate(tmp_path, "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{s}.jsonl" for s in STEMS)
    for stem in STEMS:
        name = f"{stem}.jsonl"
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_another_seed_generates_other_problems(tmp_path):
    assert generate(tmp_path, "--seed", "2").returncode == 0
    other = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [problem_of(r) for r in other] != [problem_of(r) for r in committed("train")]


def test_more_than_48_expert_rows_are_refused_with_the_number_and_the_limit(tmp_path):
    done = generate(tmp_path, "--num-expert", "49")
    assert done.returncode != 0
    assert "num_expert is 49: choose 0 to 48" in done.stderr
    assert list(tmp_path.iterdir()) == []
