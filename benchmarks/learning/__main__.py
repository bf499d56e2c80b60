"""`python -m benchmarks.learning`: runs what cells are missing, then writes the report.

Several processes may share a folder: each takes one regime and seed at a time.
"""

import argparse
import fcntl
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.learning import task
from benchmarks.learning.arms import ABLATIONS, ARMS, BUDGET
from benchmarks.learning.report import render

if TYPE_CHECKING:
    from benchmarks.learning.fleet import LocalFleet

RESULTS = task.ROOT / "benchmarks" / "learning" / "results"
DATA_SEED = 2  # 1 drew the pilot's rows, whose held-out scores were seen before the settings stood


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=task.ROOT / "out" / "learning")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the cells stand")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--regimes", nargs="+", choices=task.REGIMES, default=list(task.REGIMES))
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *ABLATIONS], default=list(ARMS))
    parser.add_argument("--budget", type=int, default=BUDGET, help="forward tokens of an arm")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=Path, help="write the report here and run nothing")
    args = parser.parse_args()
    if args.report is None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        args.out.mkdir(parents=True, exist_ok=True)
        for seed in args.seeds:
            for regime in args.regimes:
                with (args.out / f"{regime}-{seed}.lock").open("w") as lock:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:  # acceptable: another process is at it
                        continue
                    run_seed(args, regime, seed)
    target = args.report or args.out / "learning.md"
    target.write_text(render(args.results), encoding="utf-8")
    print(f"{target} written")


def run_seed(args: argparse.Namespace, regime: str, seed: int) -> None:
    """Run the missing arms of one regime and base seed."""
    from benchmarks.learning.cells import check_kept

    folder = args.results / regime / f"seed-{seed}"
    for arm in args.arms:
        if (folder / f"{arm}.json").exists():
            check_kept(folder / f"{arm}.json", args.budget)
    missing = [arm for arm in args.arms if not (folder / f"{arm}.json").exists()]
    if not missing and (folder / "base.json").exists():
        return
    from transformers import AutoTokenizer

    from benchmarks.learning.base import train_base
    from benchmarks.learning.cells import heldout, provenance, run_cell, write_cell
    from benchmarks.learning.stages import Bench
    from train.data import read_rows
    from train.prompts import PromptRenderer
    from train.spec import PromptSpec

    base = args.out / "bases" / str(seed)
    with (args.out / f"base-{seed}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be training it
        if not (base / "tokenizer.json").exists():  # written last
            train_base(base, seed, args.threads)
    data = write_data(args.out / "data" / regime, regime)
    fleet = _fleet(args.threads)

    renderer = PromptRenderer(AutoTokenizer.from_pretrained(base), PromptSpec(system=None))
    rows = {name: read_rows(path) for name, path in data.items()}
    bench = Bench(fleet, renderer, **rows, seed=seed, threads=args.threads)
    if not (folder / "base.json").exists():
        cell = {"regime": regime, "arm": "base", "seed": seed, **provenance()}
        write_cell(folder / "base.json", {**cell, "heldout": heldout(bench, base)})
    for arm in missing:
        file = run_cell(bench, regime, arm, base, args.budget, args.out, folder)
        solved = json.loads(file.read_text(encoding="utf-8"))["heldout"].values()
        print(f"{regime} seed {seed} {arm}: {sum(solved) / len(solved):.3f} held-out", flush=True)


@functools.cache
def _fleet(threads: int) -> "LocalFleet":
    """The process's one engine. Every base has the shape of the quickstart's: weights change."""
    from benchmarks.learning.fleet import LocalFleet

    return LocalFleet(str(task.ROOT / "models" / "ferrata-tiny"), threads)


def write_data(folder: Path, regime: str) -> dict[str, Path]:
    """Write the regime's rows once; the same for every seed."""
    paths = {name: folder / f"{name}.jsonl" for name in ("train", "valid", "heldout")}
    if not all(path.exists() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in task.generate(task.REGIMES[regime], seed=DATA_SEED).items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            hidden = folder / f".{name}.{os.getpid()}"
            hidden.write_text(text, encoding="utf-8")
            hidden.replace(paths[name])
    return paths


if __name__ == "__main__":
    main()
