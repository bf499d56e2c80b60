"""`python -m benchmarks.selection`: makes and measures what is missing, then writes the report.

Each architecture has a process of its own: one engine at a time.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.learning import task
from benchmarks.selection.bank import draw_all
from benchmarks.selection.checkpoints import CHECKPOINTS, make
from benchmarks.selection.report import write_report
from benchmarks.selection.timing import (
    CALIBRATION_SIZES,
    UNSEEN_SIZES,
    Size,
    folder_of,
    time_size,
)

RESULTS = task.ROOT / "benchmarks" / "selection" / "results"
PAGE = task.ROOT / "docs" / "selection.md"


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=task.ROOT / "out" / "selection")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the cells stand")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose measured part is written")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draw", metavar="ARCHITECTURE", help="draw its checkpoints' samples")
    parser.add_argument("--time", metavar="LAYERSxWIDTH", help="time one size")
    parser.add_argument("--report", action="store_true", help="write the page and run nothing")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    models = args.out / "checkpoints"
    if args.draw:
        chosen = [one for one in CHECKPOINTS if one.architecture == args.draw]
        draw_all(chosen, models, args.results, args.threads)
        return
    if args.time:
        size = Size(*map(int, args.time.split("x")))
        time_size(size, folder_of(args.out, size), args.results, args.threads)
        return
    if not args.report:
        for one in CHECKPOINTS:
            make(one, models / one.name, args.threads)
        parts = [("--draw", name) for name in dict.fromkeys(c.architecture for c in CHECKPOINTS)]
        parts += [("--time", str(size)) for size in (*CALIBRATION_SIZES, *UNSEEN_SIZES)]
        for part in parts:
            given = [f"--out={args.out}", f"--results={args.results}", f"--threads={args.threads}"]
            command = [sys.executable, "-m", "benchmarks.selection", *part, *given]
            subprocess.run(command, check=True)
    write_report(args.results, args.page)
    print(f"{args.page} written")


if __name__ == "__main__":
    main()
