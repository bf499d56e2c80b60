"""Do solutions written between two SRL stages help, and does it matter which skills they are of?

The quickstart's problems, in two skills: programs with operation `e`, and without. The experts at
hand show programs without it alone. After four SRL steps the solver writes as many solutions
again, shared alike or by weakness, and SRL takes four more; or it just goes on (`continued`).
A cell is one way from one seed: one JSON file, run unless it exists.

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
from pathlib import Path
from typing import Any

from benchmarks.learning.cells import provenance, write_cell
from benchmarks.learning.report import paired_interval

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
RESULTS = Path(__file__).with_name("more_examples_results")
ARMS, SEEDS = ("continued", "uniform", "weakness"), (0, 1, 2)
NUM_EXPERTS, NUM_BARE, NUM_VALID, NUM_HELDOUT, STEPS = 24, 200, 60, 300, 4  # NUM_BARE: a skill
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


def settings(arm: str, seed: int) -> list[str]:
    """Overrides of the quickstart's job."""
    steps = 2 * STEPS if arm == "continued" else STEPS
    said = [f"seed={seed}", "rlvr=null", f"srl.max_steps={steps}", f"srl.eval_interval={STEPS}"]
    said += ["evaluation.pass_k=1"]
    if arm != "continued":
        fields = f"num_examples: {NUM_EXPERTS}, mode: {arm}, num_problems: 64, num_samples: 4"
        said.append(f"more_examples={{{fields}}}")
    return said


def run_cell(cell: Path, arm: str, seed: int) -> None:
    """Run the job and write what it solves of the held-out rows."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": training_rows(seed), "valid": read("valid")[:NUM_VALID]}
        files["heldout"] = read("heldout")[:NUM_HELDOUT]
        said = settings(arm, seed)
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
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))
    ]
    cells = {(cell["arm"], cell["seed"]): cell for cell in found}
    lines = [
        "# Solutions written between two SRL stages",
        "",
        "Written by `python -m benchmarks.more_examples --report docs/more_examples.md` from the "
        "cells in `benchmarks/more_examples_results`.",
        "",
        f"The quickstart's model and problems; {NUM_EXPERTS} experts at hand, none of whom shows "
        f"operation `e`. `continued`: {2 * STEPS} SRL steps on them. `uniform` and `weakness`: "
        f"{STEPS} steps, then the programmatic solver writes {NUM_EXPERTS} solutions of rows that "
        f"have none (`more_examples`), shared alike between programs with `e` and without, or by "
        f"failures; then {STEPS} steps on all. Greedy, {NUM_HELDOUT} held-out rows.",
        "",
        f"| way | held-out | {WITH} | {WITHOUT} | by seed | planned: {WITH}, {WITHOUT} |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        ours = {seed: cells[arm, seed] for seed in SEEDS if (arm, seed) in cells}
        if not ours:
            lines.append(f"| {arm} | not run | | | | |")
            continue
        means = [
            sum(accuracy(cell, skill) for cell in ours.values()) / len(ours)
            for skill in (None, WITH, WITHOUT)
        ]
        shown = " | ".join(f"{mean:.3f}" for mean in means)
        seeds = ", ".join(f"{seed}: {accuracy(cell):.3f}" for seed, cell in ours.items())
        plans = "; ".join(
            f"{cell['planned'].get(WITH, 0)}, {cell['planned'].get(WITHOUT, 0)}"
            for cell in ours.values()
            if cell["planned"]
        )
        lines.append(f"| {arm} | {shown} | {seeds} | {plans} |")
    lines += ["", "Differences by seed, on the same held-out rows (95%, Student's t):", ""]
    for one, other in COMPARISONS:
        seeds = [s for s in SEEDS if (one, s) in cells and (other, s) in cells]
        by_seed = [accuracy(cells[one, s]) - accuracy(cells[other, s]) for s in seeds]
        if len(by_seed) < 2:
            lines.append(f"- {one} - {other}: {len(by_seed)} seeds, no interval")
            continue
        mean, low, high = paired_interval(by_seed)
        lines.append(f"- {one} - {other}: {mean:+.3f} ({low:+.3f} to {high:+.3f})")
    missing = [f"{arm}/{seed}" for arm in ARMS for seed in SEEDS if (arm, seed) not in cells]
    dates = sorted({cell["date"] for cell in found})
    commits = sorted({cell["commit"] for cell in found})
    lines += [
        "",
        " ".join([f"{len(cells)} cells", *dates, *commits])
        + f". Missing: {', '.join(missing) or 'none'}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what cells are missing, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", type=Path, help="write the page here and run nothing")
    args = parser.parse_args()
    if args.report is not None:
        args.report.write_text(render(args.results), encoding="utf-8")
        return
    args.results.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        for arm in ARMS:
            cell = args.results / f"{arm}-{seed}.json"
            if not cell.exists():
                run_cell(cell, arm, seed)
            print(f"{arm} {seed}: {accuracy(json.loads(cell.read_text('utf-8'))):.3f}", flush=True)


if __name__ == "__main__":
    main()
