"""Do solutions written between two SRL stages help, and does it matter which skills they are of?

The quickstart's problems, in two skills: programs with operation `e`, and without. The experts at
hand show programs without it alone. After a few SRL steps the solver writes as many solutions
again, shared alike or by weakness, and SRL takes as many more; or it just goes on (`continued`).
A cell is one number of steps, one way and one seed: one JSON file, run unless it exists.

    python -m benchmarks.more_examples
    python -m benchmarks.more_examples --report docs/more_examples.md
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.learning.cells import provenance, write_cell
from benchmarks.learning.report import paired_interval

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
RESULTS = Path(__file__).with_name("more_examples_results")
ARMS = ("continued", "uniform", "weakness")
SEEDS = {4: range(3)}  # by the steps of one stage
NUM_EXPERTS, NUM_BARE, NUM_VALID, NUM_HELDOUT = 24, 200, 60, 300  # NUM_BARE: a skill
COMPARISONS = (("uniform", "continued"), ("weakness", "continued"), ("weakness", "uniform"))
WITH, WITHOUT = "with e", "without e"


def skill_of(problem: str) -> str:
    """Whether a program holds the operation that no expert shows."""
    return WITH if "e" in problem else WITHOUT


def read(name: str) -> list[dict[str, Any]]:
    """Rows of the quickstart's file, each with its skill."""
    lines = (QUICKSTART / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row | {"skill": skill_of(row["messages"][-1]["content"])} for row in rows]


def training_rows(seed: int) -> list[dict[str, Any]]:
    """NUM_EXPERTS rows with steps, all without `e`, and NUM_BARE of each skill without steps."""
    from train.experts.families import solve

    rng, rows = random.Random(seed), read("train")
    rng.shuffle(rows)
    experts = [row for row in rows if row["skill"] == WITHOUT][:NUM_EXPERTS]
    chosen = {id(row) for row in experts}
    for row in experts:
        solution = solve(row["messages"][-1]["content"])
        assert solution is not None, "the quickstart's problems are of the solver's family"
        row["expert_steps"] = list(solution.steps)
    bare = [
        {name: value for name, value in row.items() if not name.startswith("expert")}
        for row in rows
        if id(row) not in chosen
    ]
    of_each = [[row for row in bare if row["skill"] == skill] for skill in (WITH, WITHOUT)]
    return [*experts, *(row for rows in of_each for row in rows[:NUM_BARE])]


def settings(arm: str, seed: int, steps: int) -> list[str]:
    """Overrides of the quickstart's job."""
    first = 2 * steps if arm == "continued" else steps
    said = [f"seed={seed}", "rlvr=null", f"srl.max_steps={first}", f"srl.eval_interval={steps}"]
    said += ["evaluation.pass_k=1"]
    if arm != "continued":
        fields = f"num_examples: {NUM_EXPERTS}, mode: {arm}, num_problems: 64, num_samples: 4"
        said.append(f"more_examples={{{fields}}}")
    return said


def run_cell(cell: Path, arm: str, seed: int, steps: int) -> None:
    """Run the job and write what it solves of the held-out rows."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": training_rows(seed), "valid": read("valid")[:NUM_VALID]}
        files["heldout"] = read("heldout")[:NUM_HELDOUT]
        said = settings(arm, seed, steps)
        for name, rows in files.items():
            path = Path(folder) / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            said.append(f"data.{name}={path}")
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "train", "--spec", str(QUICKSTART / "job.yaml")]
        command += ["--out", str(out), *(part for each in said for part in ("--set", each))]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        last = report["rows"][-1]["name"]
        samples = (out / "heldout" / f"{last}.jsonl").read_text(encoding="utf-8").splitlines()
        told = {}
        if arm != "continued":
            told = json.loads((out / "examples" / "result.json").read_text(encoding="utf-8"))
    solved = {sample["id"]: sample["solved"] for sample in map(json.loads, samples)}
    rows = files["heldout"]
    by_row = [
        {"skill": row["skill"], "solved": solved[f"heldout:{number}"]}
        for number, row in enumerate(rows, start=1)
    ]
    write_cell(
        cell,
        {
            "arm": arm,
            "seed": seed,
            "steps": steps,
            **provenance(),
            "seconds": round(time.monotonic() - started_s, 1),
            "greedy_by_policy": {row["name"]: row["greedy"] for row in report["rows"]},
            "planned": told.get("planned", {}),
            "left_out": told.get("left_out", {}),
            "standings": told.get("standings", {}),
            "heldout": by_row,
        },
    )


def accuracy(cell: dict[str, Any], skill: str | None = None) -> float:
    """Share of the held-out rows solved, of one skill or of all."""
    marks = [row["solved"] for row in cell["heldout"] if skill in (None, row["skill"])]
    return sum(marks) / len(marks)


def render(results: Path = RESULTS) -> str:
    """The page, from whatever cells there are."""
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*/*.json"))
    ]
    lines = [
        "# Solutions written between two SRL stages",
        "",
        "Written by `python -m benchmarks.more_examples --report docs/more_examples.md` from the "
        "cells in `benchmarks/more_examples_results`.",
        "",
        f"The quickstart's model and problems; {NUM_EXPERTS} experts at hand, none of whom shows "
        f"operation `e`. `uniform` and `weakness`: SRL, then the programmatic solver writes "
        f"{NUM_EXPERTS} solutions of rows that have none (`more_examples`), shared alike between "
        f"programs with `e` and without, or by failures; then as many steps of SRL on all. "
        f"`continued`: as many steps in all, on the experts at hand. Greedy, {NUM_HELDOUT} "
        f"held-out rows.",
    ]
    missing = []
    for steps, seeds in SEEDS.items():
        cells = {(cell["arm"], cell["seed"]): cell for cell in found if cell["steps"] == steps}
        lines += ["", f"## {steps} steps and {steps}", "", *_table(cells, seeds)]
        missing += [f"{steps}/{arm}-{s}" for arm in ARMS for s in seeds if (arm, s) not in cells]
    dates = sorted({cell["date"] for cell in found})
    commits = sorted({cell["commit"] for cell in found})
    lines += [
        "",
        " ".join([f"{len(found)} cells", *dates, *commits])
        + f". Missing: {', '.join(missing) or 'none'}.",
    ]
    return "\n".join(lines) + "\n"


def _table(cells: dict[tuple[str, int], dict[str, Any]], seeds: Iterable[int]) -> list[str]:
    """Lines about the cells of one number of steps."""
    lines = [
        f"| way | held-out | {WITH} | {WITHOUT} | by seed | planned: {WITH}, {WITHOUT} |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        ours = {seed: cells[arm, seed] for seed in seeds if (arm, seed) in cells}
        if not ours:
            lines.append(f"| {arm} | not run | | | | |")
            continue
        means = [
            sum(accuracy(cell, skill) for cell in ours.values()) / len(ours)
            for skill in (None, WITH, WITHOUT)
        ]
        shown = " | ".join(f"{mean:.3f}" for mean in means)
        by_seed = ", ".join(f"{seed}: {accuracy(cell):.3f}" for seed, cell in ours.items())
        plans = "; ".join(
            f"{cell['planned'].get(WITH, 0)}, {cell['planned'].get(WITHOUT, 0)}"
            for cell in ours.values()
            if cell["planned"]
        )
        lines.append(f"| {arm} | {shown} | {by_seed} | {plans} |")
    lines += ["", "Differences by seed, on the same held-out rows (95%, Student's t):", ""]
    for one, other in COMPARISONS:
        both = [s for s in seeds if (one, s) in cells and (other, s) in cells]
        differences = [accuracy(cells[one, s]) - accuracy(cells[other, s]) for s in both]
        if len(differences) < 2:
            lines.append(f"- {one} - {other}: {len(differences)} seeds, no interval")
            continue
        mean, low, high = paired_interval(differences)
        lines.append(f"- {one} - {other}: {mean:+.3f} ({low:+.3f} to {high:+.3f})")
    return lines


def main() -> None:
    """Run what cells are missing, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", type=Path, help="write the page here and run nothing")
    args = parser.parse_args()
    if args.report is not None:
        args.report.write_text(render(args.results), encoding="utf-8")
        return
    every = [(steps, seed, arm) for steps in SEEDS for seed in SEEDS[steps] for arm in ARMS]
    for steps, seed, arm in every:
        cell = args.results / str(steps) / f"{arm}-{seed}.json"
        if not cell.exists():
            run_cell(cell, arm, seed, steps)
        solved = accuracy(json.loads(cell.read_text("utf-8")))
        print(f"{steps} steps, {arm}, seed {seed}: {solved:.3f}", flush=True)


if __name__ == "__main__":
    main()
