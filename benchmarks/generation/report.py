"""The benchmark's page, written from whatever cells there are."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.generation.task import KINDS, kind_of
from benchmarks.learning.report import paired_interval

RESULTS = Path(__file__).with_name("results")
FINDINGS = Path(__file__).with_name("findings.md")
ARMS = ("none", "uniform", "weakness", "uniform_unsolved", "weakness_unsolved")
COMPARISONS = (
    ("weakness", "uniform"),
    ("uniform", "none"),
    ("weakness", "none"),
    ("weakness_unsolved", "uniform_unsolved"),
    ("uniform_unsolved", "uniform"),
    ("weakness_unsolved", "weakness"),
)

Cells = dict[tuple[str, int], dict[str, Any]]  # by arm, seed


def read_cells(folder: Path) -> Cells:
    """Every complete cell."""
    cells = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("seed-*/*.json"))]
    return {(cell["arm"], cell["seed"]): cell for cell in cells}


def accuracy(cell: dict[str, Any], kind: str | None = None) -> float:
    """Share of held-out rows solved, greedy; of one kind, or of all."""
    return fmean(v for p, v in cell["heldout"].items() if kind is None or kind_of(p) == kind)


def difference(cells: Cells, one: str, other: str) -> dict[int, float]:
    """Accuracy of `one` less that of `other`, by the seeds that have both."""
    return {
        seed: accuracy(cell) - accuracy(cells[other, seed])
        for (arm, seed), cell in sorted(cells.items())
        if arm == one and (other, seed) in cells
    }


def render(folder: Path) -> str:
    """The page, in Markdown. Missing cells are said to be missing."""
    cells = read_cells(folder)
    lines = ["# Example generation: by weakness or uniform", ""]
    lines += [*FINDINGS.read_text("utf-8").splitlines(), ""]
    lines += [
        "| arm | held-out, greedy | " + " | ".join(KINDS) + " | by seed | examples by kind |",
        "|---|---|" + "---|" * len(KINDS) + "---|---|",
    ]
    for arm in ARMS:
        found = {seed: cell for (name, seed), cell in sorted(cells.items()) if name == arm}
        if not found:
            lines.append(f"| {arm} | not run |" + " |" * (len(KINDS) + 2))
            continue
        means = [fmean(accuracy(c, kind) for c in found.values()) for kind in (None, *KINDS)]
        seeds = ", ".join(f"{seed}: {accuracy(cell):.3f}" for seed, cell in found.items())
        asked = [cell["examples"] for cell in found.values() if "examples" in cell]
        shown = ", ".join(f"{fmean(e[kind] for e in asked):.0f}" for kind in KINDS) if asked else ""
        lines.append(
            f"| {arm} | " + " | ".join(f"{m:.3f}" for m in means) + f" | {seeds} | {shown} |"
        )
    lines += ["", "Differences by seed, paired on the same held-out rows (95%, Student's t):", ""]
    for one, other in COMPARISONS:
        by_seed = difference(cells, one, other)
        told = ", ".join(f"{seed}: {value:+.3f}" for seed, value in by_seed.items())
        if len(by_seed) > 1:
            mean, low, high = paired_interval(list(by_seed.values()))
            lines.append(f"- {one} - {other}: {mean:+.3f} ({low:+.3f} to {high:+.3f}); {told}")
        else:
            lines.append(f"- {one} - {other}: {len(by_seed)} seeds, no interval; {told}")
    lines += ["", "## The teacher", ""]
    for (arm, seed), cell in sorted(cells.items()):
        if told := cell.get("teacher"):
            lines.append(
                f"- seed {seed}, {arm}: asked {told['asked']}, accepted {told['accepted']} "
                f"({told['repairs']} at the second draft), rejected {told['rejected']}, drafts "
                f"{told['drafts']}"
            )
    lines += ["", "## How the student stood before", ""]
    lines += _standings(cells)
    wanted = [(arm, seed) for seed in sorted({0, 1, 2} | {s for _, s in cells}) for arm in ARMS]
    missing = [f"{arm}/{seed}" for arm, seed in wanted if (arm, seed) not in cells]
    dates = sorted({cell["date"] for cell in cells.values()})
    lines += [
        "",
        " ".join([f"{len(cells)} cells", *dates]) + f". Missing: {', '.join(missing) or 'none'}.",
    ]
    return "\n".join(lines) + "\n"


def _standings(cells: Cells) -> list[str]:
    lines = []
    for (arm, seed), cell in sorted(cells.items()):
        if arm == "uniform":  # the same before every arm of a seed
            told = ", ".join(
                f"{kind} {one['pass_rate']:.2f} ({one['ci95'][0]:.2f} to {one['ci95'][1]:.2f}"
                + (", surely weak)" if one["surely_weak"] else ")")
                for kind, one in cell["standings"].items()
            )
            lines.append(f"- seed {seed}, pass rate of the pool: {told}")
    return lines
