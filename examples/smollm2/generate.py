"""Rows of reasoning-gym's `chain_sum`: sums of 4 to 6 numbers of two digits, an addition a step.

The first rows of train.jsonl carry an expert solution: a running total. All rows are whole entries
of reasoning-gym, so that its own scorer judges them. The files are disjoint by problem.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from rollout.verifiers.gym_import import reasoning_gym

TASK = {"min_terms": 4, "max_terms": 6, "min_digits": 2, "max_digits": 2}
INSTRUCTION = "Add one number at a time, a line each, until the total is there."


def expert_steps(question: str) -> list[str]:
    """`12 + 45 - 8` becomes ["12 + 45 = 57", "57 - 8 = 49"]."""
    numbers = re.findall(r"[+-]? ?\d+", question.split(":")[1])
    total, steps = int(numbers[0].replace(" ", "")), []
    for term in numbers[1:]:
        sign, value = term[0], int(term[1:])
        after = total + value if sign == "+" else total - value
        steps.append(f"{total} {sign} {value} = {after}")
        total = after
    return steps


def make_row(entry: dict[str, Any], *, expert: bool) -> dict[str, Any]:
    """One data row."""
    steps = expert_steps(entry["question"])
    assert steps[-1].endswith(f"= {entry['answer']}"), entry
    row = {
        "messages": [{"role": "user", "content": f"{entry['question']}\n{INSTRUCTION}"}],
        "reference_answer": entry["answer"],
        **entry,
    }
    return row | ({"expert_steps": steps} if expert else {})


def main() -> None:
    """Write train.jsonl, valid.jsonl and heldout.jsonl."""
    parser = argparse.ArgumentParser(description="Write the files of the SmolLM2 example.")
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sizes = {"train": 600, "valid": 50, "heldout": 200}
    experts = 60
    dataset = reasoning_gym.create_dataset(
        "chain_sum", size=2 * sum(sizes.values()), seed=args.seed, **TASK
    )
    unique = iter({entry["question"]: entry for entry in dataset}.values())
    args.out.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        rows = [make_row(next(unique), expert=name == "train" and i < experts) for i in range(size)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (args.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{args.out / name}.jsonl: {size} rows")


if __name__ == "__main__":
    main()
