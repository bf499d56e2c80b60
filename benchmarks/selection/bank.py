"""Real samples of every checkpoint on every problem, drawn several times over and kept.

Draw 0 is the full evaluation. Each later draw is what one run of the selector may look at: samples
of its own, from the same engine and grader, of which it uses only those that it asks for.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.cells import provenance, write_cell
from benchmarks.selection.checkpoints import Checkpoint, problems
from train.selection.ranking import Measurement

NUM_PROBLEMS, K = 256, 4
NUM_SELECTIONS = 6  # draws beside the full evaluation
ROWS_SEED = 7


def draw_all(checkpoints: Sequence[Checkpoint], models: Path, results: Path, threads: int) -> None:
    """Draw what is missing of checkpoints of one architecture: one engine, weights change."""
    missing = [
        (one, draw)
        for one in checkpoints
        for draw in range(NUM_SELECTIONS + 1)
        if not _file(results, one, draw).exists()
    ]
    if not missing:
        return
    from transformers import AutoConfig, AutoTokenizer

    from benchmarks.learning.fleet import LocalFleet
    from train.auto.facts import read_model_facts
    from train.data import read_rows
    from train.policy import load_model
    from train.prompts import PromptRenderer
    from train.spec import PromptSpec

    path = models / "problems.jsonl"
    lines = [json.dumps(row) + "\n" for row in problems(NUM_PROBLEMS, ROWS_SEED)]
    path.write_text("".join(lines), encoding="utf-8")
    rows = read_rows(path)
    folder = str(models / missing[0][0].name)
    fleet = LocalFleet(folder, threads)
    renderer = PromptRenderer(AutoTokenizer.from_pretrained(folder), PromptSpec(system=None))
    loaded = None
    for one, draw in missing:
        folder = str(models / one.name)
        if loaded != one.name:
            fleet.publish(dict(load_model(folder, "float32").state_dict()))
            loaded = one.name
        facts = read_model_facts(folder, AutoConfig.from_pretrained(folder))
        cell = _draw(fleet, renderer, rows, facts, draw)
        settings = dataclasses.asdict(one) | {"num_parameters": facts.num_parameters, "draw": draw}
        write_cell(_file(results, one, draw), settings | cell | provenance())
        solved = sum(count > 0 for count in cell["solved"]) / NUM_PROBLEMS
        print(f"{one.name} draw {draw}: pass@{K} {solved:.3f}, {cell['seconds']} s", flush=True)


def _draw(fleet: Any, renderer: Any, rows: Any, facts: Any, draw: int) -> dict[str, Any]:
    """One draw of every problem. Raises RuntimeError for a problem without every verdict."""
    from benchmarks.learning.stages import GRADER, MAX_TURNS, sampling
    from rollout.collector import score_groups
    from train.evaluate import num_solved
    from train.rlvr import rlvr_problems
    from train.selection.cost import turn_work

    started_s, cpu_s = time.monotonic(), time.process_time()
    asked = rlvr_problems(rows, renderer, GRADER)
    rollouts = fleet.generate(asked, K, sampling(MAX_TURNS, 1.0), draw)
    groups = score_groups(asked, rollouts, lambda pairs: fleet.score(GRADER, pairs))
    if any(None in group.verdicts for group in groups):
        raise RuntimeError(f"samples without a verdict: {fleet.last_failures()}")
    turns = [[t for rollout in group.rollouts for t in rollout.turns] for group in groups]
    flops = [
        sum(
            turn_work(facts, len(t.prompt_ids), len(t.token_ids), trained=False).sampling_flops
            for t in of_group
        )
        for of_group in turns
    ]
    return {
        "solved": [num_solved(group) for group in groups],
        "tokens": [sum(len(t.prompt_ids) + len(t.token_ids) for t in g) for g in turns],
        "mflops": [round(value / 1e6, 1) for value in flops],
        "cpu_seconds": round(time.process_time() - cpu_s, 1),
        "seconds": round(time.monotonic() - started_s, 1),
    }


def measured(cell: dict[str, Any], order: Sequence[int], first: int, last: int) -> Measurement:
    """What the selector's probe would say of problems [first, last) of `order`, from a draw."""
    chosen = order[first:last]
    solved = tuple(cell["solved"][i] for i in chosen)
    num = len(chosen)
    return Measurement(
        num_problems=num,
        k=K,
        pass_at_k=sum(count > 0 for count in solved) / num,
        sampled=sum(solved) / num / K,
        tokens_per_problem=sum(cell["tokens"][i] for i in chosen) / num,
        flops_per_problem=sum(cell["mflops"][i] for i in chosen) * 1e6 / num,
        seconds=cell["cpu_seconds"] * num / len(cell["solved"]),
        solved=solved,
    )


def read_bank(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Every checkpoint's draws, in order, by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((results / "bank").glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(cell["name"], []).append(cell)
    return {name: sorted(cells, key=lambda cell: cell["draw"]) for name, cells in found.items()}


def _file(results: Path, one: Checkpoint, draw: int) -> Path:
    return results / "bank" / f"{one.name}.draw-{draw}.json"
