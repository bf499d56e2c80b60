"""Write the sweep's data: expert solutions of short and of long problems, and problems to test.

The task is the quickstart's. A short problem has 2 or 3 lines, a long one 5 or 6; those that
validate and those held out are long.
"""

import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from examples.quickstart.generate import make_row, sample_problem  # noqa: E402

FILES = {  # file stem: (rows, lines of a problem, with expert steps)
    "short": (48, (2, 3), True),
    "long": (48, (5, 6), True),
    "valid": (150, (5, 6), False),
    "heldout": (400, (5, 6), False),
}


def main() -> None:
    """Write the files beside this one; no problem is in two of them."""
    rng, seen = random.Random(7), set()
    for stem, (num_rows, lengths, expert) in FILES.items():
        rows = []
        while len(rows) < num_rows:
            problem = sample_problem(rng, rng.choice(lengths))
            if problem not in seen:
                seen.add(problem)
                rows.append(json.dumps(make_row(problem, expert=expert)) + "\n")
        (HERE / f"{stem}.jsonl").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
