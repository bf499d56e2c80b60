"""A cell is one arm, in one regime, from one base seed: one JSON file, run unless it exists."""

import dataclasses
import hashlib
import json
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.learning import task
from benchmarks.learning.arms import ABLATIONS, ARMS, TRAIN_COST, Stage
from benchmarks.learning.stages import Bench, StageResult, run_stage

RESULT = "stage.json"


def run_cell(
    bench: Bench, regime: str, arm: str, base: Path, budget: int, out: Path, results: Path
) -> Path:
    """Run an arm's stages, read the held-out rows once, write the cell; return its file.

    Weights stay under `out`; the cell goes to the folder `results`, which is small and kept.
    A cell that is there is kept. Raises ValueError when it is of another budget or another base.
    """
    folder = out / regime / f"seed-{bench.seed}"
    cell = results / f"{arm}.json"
    base_hash = weights_hash(base)
    if cell.exists():
        check_kept(cell, budget, base_hash)
        return cell
    started_s = time.monotonic()
    model, path = base, ""
    best: tuple[float, Path] = (-1.0, base)
    done: list[dict[str, Any]] = []
    for stage in (ARMS | ABLATIONS)[arm]:
        path = f"{path}+{stage.name}" if path else stage.name
        done.append(_stage(bench, stage, model, budget, folder / "stages" / path))
        model = folder / "stages" / path
        if done[-1]["best"] >= best[0]:
            best = (done[-1]["best"], model)
    solved = heldout(bench, best[1])
    write_cell(
        cell,
        {
            "regime": regime,
            "arm": arm,
            "seed": bench.seed,
            "budget": budget,
            "base_sha256": base_hash,
            "train_cost": TRAIN_COST,
            **provenance(),
            "validation": best[0],
            "stages": done,
            "seconds": round(time.monotonic() - started_s, 1),
            "heldout": solved,
        },
    )
    return cell


def weights_hash(model: Path) -> str:
    """SHA-256 of the model's weights file, in hexadecimal."""
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def check_kept(cell: Path, budget: int, base_hash: str | None = None) -> None:
    """Raise ValueError when a kept cell cannot stand beside cells of this budget and base.

    The first cells do not say from which weights they started; those are taken at their word.
    """
    kept = json.loads(cell.read_text(encoding="utf-8"))
    for name, wanted in (("budget", budget), ("base_sha256", base_hash)):
        if wanted is not None and kept.get(name, wanted) != wanted:
            raise ValueError(
                f"{cell} has {name} {kept[name]}, this run {wanted}: give another --results, or "
                "remove the cell to have it run again"
            )


def heldout(bench: Bench, model: Path) -> dict[str, bool]:
    """Greedy, on held-out rows: {problem: solved}."""
    from train.policy import load_model

    bench.fleet.publish(dict(load_model(str(model), "float32").state_dict()))
    text = {row.id: row.problem_text for row in bench.heldout}
    return {text[s["id"]]: s["solved"] for s in bench.evaluate(bench.heldout).samples}


def write_cell(path: Path, cell: dict[str, Any]) -> None:
    """Write so that a reader sees the whole cell or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_suffix(".writing")
    hidden.write_text(json.dumps(cell) + "\n", encoding="utf-8")
    hidden.replace(path)


def provenance() -> dict[str, str]:
    """The date, and the commit that runs, marked when the working tree differs from it."""
    command = ["git", "-C", str(task.ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return {"commit": commit, "date": datetime.now(timezone.utc).date().isoformat()}


def _stage(bench: Bench, stage: Stage, model: Path, budget: int, folder: Path) -> dict[str, Any]:
    """Run a stage, or take what an earlier arm with the same past has left."""
    file = folder / RESULT
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        started_s = time.monotonic()
        result: StageResult = run_stage(bench, stage, model, budget, folder)
        bench.renderer.tokenizer.save_pretrained(folder)
        record = dataclasses.asdict(result) | {
            "name": stage.name,
            "cost": result.cost,
            "settings": stage.spec().model_dump(mode="json"),
            "seconds": round(time.monotonic() - started_s, 1),
        }
        write_cell(file, record)
    return json.loads(file.read_text(encoding="utf-8"))
