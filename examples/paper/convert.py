"""Rows of s1K-1.1 become rows of a job: expert steps for SRL, answers for RLVR.

    python examples/paper/convert.py s1K-1.1.jsonl --out examples/paper

A row's `deepseek_attempt` is a solution in numbered, titled steps. It is kept as it stands when
`train.step_parser` reads it; a row whose solution has another form, or was graded wrong, is left
out and counted by reason. The answer is what the solution boxes. Validation rows are drawn
with a seed.
"""

import argparse
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

from rollout.verifiers.math_text import extract_answer
from train.step_parser import parse_steps

FIELDS = ("question", "deepseek_attempt", "deepseek_grade")


class RowLeftOutError(ValueError):
    """A row that the method cannot use; the message is the reason."""


def convert_row(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a job. Raises RowLeftOutError, and KeyError for another data set's row."""
    question, solution, grade = (raw[name] for name in FIELDS)
    if grade != "Yes":
        raise RowLeftOutError("the solution was graded wrong")
    try:
        steps = parse_steps(solution)
    except ValueError as error:
        raise RowLeftOutError(f"the solution {error}") from None
    if len(steps) < 2:
        raise RowLeftOutError("the solution has a single step")
    answer = extract_answer(solution, boxed_only=True)
    if answer is None:
        raise RowLeftOutError("the solution boxes no answer")
    return {
        "messages": [{"role": "user", "content": question}],
        "expert_steps": solution,
        "reference_answer": answer,
    }


def convert(lines: list[str]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Convert JSON Lines; return the rows, and how many were left out for which reason."""
    rows, left_out = [], Counter()
    for line in lines:
        try:
            rows.append(convert_row(json.loads(line)))
        except RowLeftOutError as error:  # counted and told: the paper leaves such rows out too
            left_out[re.sub(r"\d+|'.*'", "...", str(error)).split(";")[0]] += 1
    return rows, left_out


def main() -> None:
    """Write train.jsonl and valid.jsonl, and say what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="s1K-1.1 as JSON Lines")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-valid", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows, left_out = convert(args.source.read_text(encoding="utf-8").splitlines())
    if len(rows) <= args.num_valid:
        parser.error(f"{args.source}: {len(rows)} usable rows, of which {args.num_valid} validate")
    random.Random(args.seed).shuffle(rows)
    for name, part in (("valid", rows[: args.num_valid]), ("train", rows[args.num_valid :])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (args.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}.jsonl: {len(part)} rows")
    for reason, count in left_out.most_common():
        print(f"left out: {count} rows, because {reason}")


if __name__ == "__main__":
    main()
