"""The benchmark's page, written from whatever cells there are."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.learning.arms import ABLATIONS, ARMS
from benchmarks.learning.task import REGIMES, UNSEEN, has_unseen

FINDINGS = Path(__file__).with_name("findings.md")
# Student's t, two-sided 95%, by degrees of freedom (seeds - 1).
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
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


def paired_interval(differences_S: Sequence[float]) -> tuple[float, float, float]:
    """(mean, lower, upper) of one difference per base seed: Student's t, 95%.

    What is claimed is about bases, so a base counts once, however many rows it was read on; its
    held-out rows are in the seeds' spread. With two or three seeds the interval is wide, as it
    should be. Raises ValueError for fewer than 2 seeds, or more than 10.
    """
    freedom = len(differences_S) - 1
    if freedom not in T_95:
        raise ValueError(f"{len(differences_S)} seeds: an interval needs 2 to {len(T_95) + 1}")
    mean = fmean(differences_S)
    half = T_95[freedom] * stdev(differences_S) / len(differences_S) ** 0.5
    return mean, mean - half, mean + half


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
        f"| arm | held-out, greedy | with `{UNSEEN}` | without | by seed | forward tokens "
        "| validations |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in ("base", *ARMS, *ABLATIONS):
        found = {s: c for (r, a, s), c in sorted(cells.items()) if (r, a) == (regime, arm)}
        if not found:
            lines += [f"| {arm} | not run | | | | | |"] if arm in ARMS or arm == "base" else []
            continue
        mean = [fmean(accuracy(c, u) for c in found.values()) for u in (None, True, False)]
        seeds = ", ".join(f"{s}: {accuracy(c):.3f}" for s, c in found.items())
        stages = [c.get("stages", []) for c in found.values()]
        costs = [sum(stage["cost"] for stage in each) / 1e6 for each in stages]
        looks = [sum(len(stage["validations"]) for stage in each) for each in stages]
        lines.append(
            f"| {arm} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.3f} | {seeds} "
            f"| {_range(costs, '.2f')} M | {_range(looks, 'd')} |"
        )
    return lines


def _range(values: Sequence[float], form: str) -> str:
    """The least and the largest, or the one value."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low}-{high}"


def _differences(cells: Cells, regime: str) -> list[str]:
    lines = [
        "",
        "Differences by base seed, paired on the same held-out rows; in brackets the 95% interval "
        "of the mean over base seeds (Student's t):",
        "",
    ]
    for first, second in COMPARISONS + ABLATION_COMPARISONS:
        by_seed = {
            s: accuracy(cells[regime, first, s]) - accuracy(cells[regime, second, s])
            for (r, a, s) in sorted(cells)
            if (r, a) == (regime, first) and (regime, second, s) in cells
        }
        if not by_seed:
            continue
        shown = ", ".join(f"{seed}: {value:+.3f}" for seed, value in by_seed.items())
        if len(by_seed) == 1:
            lines.append(f"- {first} - {second}: one seed, no interval; {shown}")
            continue
        mean, low, high = paired_interval(list(by_seed.values()))
        lines.append(f"- {first} - {second}: {mean:+.3f} ({low:+.3f} to {high:+.3f}); {shown}")
    return lines if len(lines) > 3 else []


def _provenance(cells: Cells) -> list[str]:
    commits = sorted({cell["commit"] for cell in cells.values()})
    dates = sorted({cell["date"] for cell in cells.values()})
    minutes = sum(cell.get("seconds", 0) for cell in cells.values()) / 60
    missing = [text for regime in REGIMES for text in _missing(cells, regime)]
    lines = ["", "## Provenance", ""]
    if cells:
        days = " to ".join(sorted({dates[0], dates[-1]}))
        lines += [
            f"{len(cells)} cells, {minutes:.0f} minutes on one thread each, {days}, "
            f"commit {', '.join(commits)}."
        ]
    return [*lines, f"Missing cells: {', '.join(missing) if missing else 'none'}."]


def _missing(cells: Cells, regime: str) -> list[str]:
    """The cells of a regime that are still to be run."""
    seeds = sorted({0, 1, 2} | {seed for _, _, seed in cells})
    wanted = [(regime, arm, seed) for arm in ARMS for seed in seeds]
    missing = [f"{r}/{a}/{s}" for r, a, s in wanted if (r, a, s) not in cells]
    return [f"all {len(wanted)} of {regime}"] if len(missing) == len(wanted) else missing
