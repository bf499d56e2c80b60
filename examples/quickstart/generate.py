"""Seeded data for the quickstart: digit programs, solved one line at a time.

A problem such as `9037:1sr,2li` is a 4-digit state and a program; `train.experts.digit_programs`
says how such a program runs and what its expert solution looks like.

Every problem here is hard (`HARD_LINES` lines). Few training rows carry an expert solution; the
others carry only the reference answer, so SRL learns from the former and RLVR from all of them.
The three files are disjoint by problem. Called from the command line, and imported by the recipe of
the tiny base model.
"""

import argparse
import json
import random
from itertools import combinations
from pathlib import Path

from train.experts.digit_programs import LINE_OPERATIONS, parse, run_line, solve

HARD_LINES = (5, 6)
MAX_EXPERT_ROWS = 48


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
