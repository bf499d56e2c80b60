"""The benchmark's page, written from whatever cells there are."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.learning.arms import ABLATIONS, ARMS
from benchmarks.learning.task import REGIMES, UNSEEN, has_unseen

FINDINGS = Path(__file__).with_name("findings.md")
NUM_RESAMPLES = 10_000
COMPARISONS = (
    ("srl_rlvr", "srl_continued"),
    ("srl_rlvr", "sft_rlvr"),
    ("srl_rlvr", "sft_thoughts_rlvr"),
    ("srl_rlvr", "rlvr"),
    ("srl_continued", "sft_steps"),
    ("srl_continued", "sft_thoughts"),
)
ABLATION_COMPARISONS = tuple((name, "srl") for name in ABLATIONS)

Cells = dict[tuple[str, str, int], dict[str, Any]]  # by regime, arm, seed


def read_cells(out: Path) -> Cells:
    """Every complete cell under `out`."""
    cells = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*/seed-*/*.json"))]
    return {(cell["regime"], cell["arm"], cell["seed"]): cell for cell in cells}


def paired_interval(differences_SR: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """(mean, lower, upper) of differences `[seeds][rows]`: 95% percentile bootstrap.

    Seeds and rows are drawn anew independently (the two-way bootstrap of Owen, 2007): both are
    samples, of bases and of problems. With three seeds it is coarse.
    """
    import numpy as np

    values = np.asarray(differences_SR, dtype=float)
    num_seeds, num_rows = values.shape
    rng = np.random.default_rng(0)
    seeds = rng.multinomial(num_seeds, [1 / num_seeds] * num_seeds, NUM_RESAMPLES) / num_seeds
    rows = rng.multinomial(num_rows, [1 / num_rows] * num_rows, NUM_RESAMPLES) / num_rows
    means = ((seeds @ values) * rows).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def accuracy(cell: dict[str, Any], unseen: bool | None = None) -> float:
    """Share of held-out rows solved; of those with, or without, the unseen operation."""
    rows = [v for p, v in cell["heldout"].items() if unseen is None or has_unseen(p) == unseen]
    return fmean(rows)


def render(out: Path) -> str:
    """The page, in Markdown. Missing cells are said to be missing."""
    cells = read_cells(out)
    lines = ["# Learning bench", ""]
    lines += FINDINGS.read_text(encoding="utf-8").splitlines()
    for regime in REGIMES.values():
        lines += ["", f"## {regime.name}", ""]
        shown = f"any operation, `{UNSEEN}` too" if regime.experts_show_all else f"never `{UNSEEN}`"
        lines += [
            f"{regime.num_experts} expert solutions (showing {shown}), {regime.num_answers} more "
            "problems with the answer only."
        ]
        lines += _table(cells, regime.name) + _differences(cells, regime.name)
    return "\n".join(lines + _provenance(cells)) + "\n"


def _table(cells: Cells, regime: str) -> list[str]:
    lines = [
        "",
        f"| arm | held-out, greedy | with `{UNSEEN}` | without | by seed | forward tokens |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ("base", *ARMS, *ABLATIONS):
        found = {s: c for (r, a, s), c in sorted(cells.items()) if (r, a) == (regime, arm)}
        if not found:
            lines += [f"| {arm} | not run | | | | |"] if arm in ARMS or arm == "base" else []
            continue
        mean = [fmean(accuracy(c, u) for c in found.values()) for u in (None, True, False)]
        seeds = ", ".join(f"{s}: {accuracy(c):.3f}" for s, c in found.items())
        cost = fmean(sum(stage["cost"] for stage in c.get("stages", [])) for c in found.values())
        lines.append(
            f"| {arm} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.3f} | {seeds} "
            f"| {cost / 1e6:.2f} M |"
        )
    return lines


def _differences(cells: Cells, regime: str) -> list[str]:
    lines = ["", "Paired differences, with 95% intervals over seeds and held-out rows:", ""]
    for first, second in COMPARISONS + ABLATION_COMPARISONS:
        pairs = [
            (cells[regime, first, s], cells[regime, second, s])
            for (r, a, s) in sorted(cells)
            if (r, a) == (regime, first) and (regime, second, s) in cells
        ]
        if not pairs:
            continue
        differences = [
            [float(solved) - float(b["heldout"][row]) for row, solved in a["heldout"].items()]
            for a, b in pairs
        ]
        mean, low, high = paired_interval(differences)
        seeds = f"{len(pairs)} seed{'s' if len(pairs) > 1 else ''}"
        lines.append(
            f"- {first} - {second}: {mean:+.3f} ({low:+.3f} to {high:+.3f}), {seeds}"
            + ("; rows only" if len(pairs) == 1 else "")
        )
    return lines if len(lines) > 3 else []


def _provenance(cells: Cells) -> list[str]:
    commits = sorted({cell["commit"] for cell in cells.values()})
    dates = sorted({cell["date"] for cell in cells.values()})
    minutes = sum(cell.get("seconds", 0) for cell in cells.values()) / 60
    missing = [text for regime in REGIMES for text in _missing(cells, regime)]
    lines = ["", "## Provenance", ""]
    if cells:
        lines += [
            f"{len(cells)} cells, {minutes:.0f} minutes on one thread each, {dates[0]} to "
            f"{dates[-1]}, commit {', '.join(commits)}."
        ]
    return [*lines, f"Missing cells: {', '.join(missing) if missing else 'none'}."]


def _missing(cells: Cells, regime: str) -> list[str]:
    """The cells of a regime that are still to be run."""
    seeds = sorted({0, 1, 2} | {seed for _, _, seed in cells})
    wanted = [(regime, arm, seed) for arm in ARMS for seed in seeds]
    missing = [f"{r}/{a}/{s}" for r, a, s in wanted if (r, a, s) not in cells]
    return [f"all {len(wanted)} of {regime}"] if len(missing) == len(wanted) else missing
