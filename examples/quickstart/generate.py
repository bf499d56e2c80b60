"""Seeded data for the quickstart: digit programs, solved one line at a time.

A problem such as `9037:1sr,2li` is a 4-digit state and a program. Every program line is its number
and two primitive operations (`OPERATIONS`), applied from left to right. The expert solves one line
per step, and writes the line, `=` and the state after it: `1sr=7390`. The hidden working of a step
is the line's number and the state between the two operations: `1:0937`.

Every problem here is hard (`HARD_LINES` lines). Few training rows carry an expert solution; the
others carry only the reference answer, so SRL learns from the former and RLVR from all of them.
The three files are disjoint by problem. Standard library only; called from the command line, and
imported by the recipe of the tiny base model.
"""

import argparse
import json
import random
from collections.abc import Callable
from itertools import combinations, permutations
from pathlib import Path

HARD_LINES = (5, 6)
MAX_EXPERT_ROWS = 48

OPERATIONS: dict[str, Callable[[str], str]] = {
    "r": lambda s: s[::-1],  # reverse
    "l": lambda s: s[1:] + s[0],  # rotate left
    "e": lambda s: s[-1] + s[1:-1] + s[0],  # swap the ends
    "s": lambda s: s[1] + s[0] + s[2:],  # swap the first two
    "i": lambda s: "".join(str((int(d) + 1) % 10) for d in s),  # add one to each digit, mod 10
    "c": lambda s: "".join(str(9 - int(d)) for d in s),  # 9-complement of each digit
}
# Two different operations: a doubled one is mostly the identity, a step that could be skipped.
LINE_OPERATIONS = ["".join(pair) for pair in permutations(OPERATIONS, 2)]


def apply_op(op: str, state: str) -> str:
    """Return the state after one primitive operation. Raises ValueError for an unknown one."""
    if op not in OPERATIONS:
        raise ValueError(f"unknown operation {op!r}: choose from {', '.join(OPERATIONS)}")
    return OPERATIONS[op](state)


def run_line(line: str, state: str) -> tuple[str, str]:
    """Return (state after the line's first operation, state after its second)."""
    _, first, second = line
    middle = apply_op(first, state)
    return middle, apply_op(second, middle)


def parse(problem: str) -> tuple[str, list[str]]:
    """Split `9037:1sr,2li` into the start state and the program lines."""
    state, program = problem.split(":")
    return state, program.split(",")


def solve(problem: str) -> tuple[list[str], list[str], str]:
    """Return the expert's steps, its thoughts (one per step) and the final answer."""
    state, lines = parse(problem)
    steps, thoughts = [], []
    for line in lines:
        thought, step, state = write_step(line, state)
        thoughts.append(thought)
        steps.append(step)
    return steps, thoughts, state


def write_step(line: str, state: str) -> tuple[str, str, str]:
    """Return (thought, step, state after it) for one program line."""
    middle, after = run_line(line, state)
    return f"{line[0]}:{middle}", f"{line}={after}", after


def sample_problem(rng: random.Random, num_lines: int) -> str:
    """Draw a problem whose answer cannot be had by chance or by copying.

    The digits differ, so that an answer is one of hundreds; and it is not the start state.
    """
    while True:
        state = "".join(rng.sample("0123456789", 4))
        operations = rng.choices(LINE_OPERATIONS, k=num_lines)
        lines = [f"{number}{pair}" for number, pair in enumerate(operations, start=1)]
        problem = f"{state}:{','.join(lines)}"
        if solve(problem)[2] != state:
            return problem


def has_shortcut(problem: str) -> bool:
    """True when leaving out lines, or running one line twice, gives the right answer too.

    Operations undo each other often enough that careless walks reach one answer in a hundred;
    such an answer proves nothing.
    """
    state, lines = parse(problem)
    answer = solve(problem)[2]

    def result(walk: list[str]) -> str:
        end = state
        for line in walk:
            _, end = run_line(line, end)
        return end

    walks = [list(walk) for n in range(len(lines)) for walk in combinations(lines, n)]
    walks += [walk[: i + 1] + walk[i:] for walk in [*walks, lines] for i in range(len(walk))]
    return any(result(walk) == answer for walk in walks)


def make_row(problem: str, *, expert: bool) -> dict[str, object]:
    """Return one data row; with `expert`, the steps and their hidden working too."""
    steps, thoughts, answer = solve(problem)
    row: dict[str, object] = {
        "messages": [{"role": "user", "content": problem}],
        "reference_answer": answer,
    }
    if expert:
        row |= {"expert_steps": steps, "expert_thoughts": thoughts}
    return row


def generate(
    seed: int, num_expert: int, num_answers: int, num_valid: int, num_heldout: int
) -> dict[str, list[dict[str, object]]]:
    """Return the rows of each file, by file stem. The same seed gives the same rows."""
    if not 0 <= num_expert <= MAX_EXPERT_ROWS:
        raise ValueError(f"num_expert is {num_expert}: choose 0 to {MAX_EXPERT_ROWS}")
    rng = random.Random(seed)
    total = num_expert + num_answers + num_valid + num_heldout
    unique: dict[str, None] = {}  # a dict keeps the order drawn, and so the split, fixed
    while len(unique) < total:
        problem = sample_problem(rng, rng.choice(HARD_LINES))
        if not has_shortcut(problem):
            unique[problem] = None
    problems = iter(unique)

    def take(count: int, *, expert: bool = False) -> list[dict[str, object]]:
        return [make_row(next(problems), expert=expert) for _ in range(count)]

    return {
        "train": take(num_expert, expert=True) + take(num_answers),
        "valid": take(num_valid),
        "heldout": take(num_heldout),
    }


def main() -> None:
    """Write train.jsonl, valid.jsonl and heldout.jsonl."""
    parser = argparse.ArgumentParser(description="Write the quickstart's data files.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder to write to")
    parser.add_argument("--num-expert", type=int, default=MAX_EXPERT_ROWS)
    parser.add_argument("--num-answers", type=int, default=2000, help="rows without expert steps")
    parser.add_argument("--num-valid", type=int, default=200)
    parser.add_argument("--num-heldout", type=int, default=500)
    args = parser.parse_args()

    files = generate(args.seed, args.num_expert, args.num_answers, args.num_valid, args.num_heldout)
    args.out.mkdir(parents=True, exist_ok=True)
    for stem, rows in files.items():
        path = args.out / f"{stem}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    main()
