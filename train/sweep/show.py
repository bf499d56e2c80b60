"""A sweep's result as a table (text and CSV) and as a picture of every trial's validations."""

import csv
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich.table import Table

CSV_FILE, PICTURE_FILE = "trials.csv", "sweep.svg"
WIDTH, HEIGHT, LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 960, 420, 60, 20, 520, 350
# Okabe and Ito's colours, which colour-blind readers tell apart; more trials use them again.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#666666", "#B8A800")


def ranked(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials, the best validation first; those without one last."""

    def order(trial: dict[str, Any]) -> tuple[float, bool, int]:
        reward = trial["best_valid_reward"]
        best = trial["trial"] == result["best"]
        return (-reward if reward is not None else 1e9, not best, trial["trial"])

    return sorted(result["trials"], key=order)


def _cells(trial: dict[str, Any], result: dict[str, Any]) -> list[str]:
    marks = {"default": trial["trial"] == 0, "best": trial["trial"] == result["best"]}
    reward = trial["best_valid_reward"]
    return [
        str(trial["trial"]),
        *(_short(value) for value in trial["setting"].values()),
        "" if reward is None else f"{reward:.3f}",
        str(trial["steps"]),
        ", ".join([trial["ended"], *(name for name, holds in marks.items() if holds)]),
    ]


def _heads(result: dict[str, Any]) -> list[str]:
    return ["trial", *result["trials"][0]["setting"], "validation", "steps", "end"]


def table(result: dict[str, Any]) -> Table:
    """One line a trial, the best first."""
    shown = Table(title="Trials", caption=result["verdict"])
    for name in _heads(result):
        shown.add_column(name, justify="left" if name == "end" else "right")
    for trial in ranked(result):
        shown.add_row(*_cells(trial, result))
    return shown


def write_csv(result: dict[str, Any], path: Path) -> None:
    """The same table as a file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_heads(result))
        writer.writerows(_cells(trial, result) for trial in ranked(result))


def draw(result: dict[str, Any], path: Path) -> None:
    """Validation reward over optimizer steps, a line a trial, as SVG."""
    points = [point for trial in result["trials"] for point in trial["validations"]]
    last = max((steps for steps, _ in points), default=1)
    low = min([0.0, *(reward for _, reward in points)])
    high = max([1e-9, *(reward for _, reward in points)])

    def x(steps: float) -> float:
        return LEFT + PLOT_WIDTH * steps / last

    def y(reward: float) -> float:
        return TOP + PLOT_HEIGHT * (high - reward) / (high - low)

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for i in range(5):
        level, steps = low + (high - low) * i / 4, last * i / 4
        parts.append(
            f'<path d="M{LEFT} {y(level):.1f}h{PLOT_WIDTH}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{y(level) + 4:.1f}" text-anchor="end">{level:.3f}</text>'
            f'<text x="{x(steps):.1f}" y="{TOP + PLOT_HEIGHT + 18}" text-anchor="middle">'
            f"{steps:g}</text>"
        )
    for row, trial in enumerate(ranked(result)):
        colour = COLOURS[trial["trial"] % len(COLOURS)]
        strong = trial["trial"] in (0, result["best"])
        line = " ".join(f"{x(s):.1f},{y(r):.1f}" for s, r in trial["validations"])
        dash = ' stroke-dasharray="6 3"' if trial["trial"] == 0 else ""
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" '
            f'stroke-width="{3 if strong else 1.5}"{dash}/>'
        )
        parts += [
            f'<circle cx="{x(s):.1f}" cy="{y(r):.1f}" r="3" fill="{colour}"/>'
            for s, r in trial["validations"]
        ]
        setting = ", ".join(f"{n} {_short(v)}" for n, v in trial["setting"].items())
        mark = " (default)" if trial["trial"] == 0 else ""
        mark += " (best)" if trial["trial"] == result["best"] else ""
        parts.append(
            f'<text x="{LEFT + PLOT_WIDTH + 16}" y="{TOP + 12 + 16 * row}" fill="{colour}">'
            f"{trial['trial']}{mark}: {escape(setting)}</text>"
        )
    parts.append(
        f'<text x="{LEFT + PLOT_WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
        "optimizer steps; mean validation reward</text>"
    )
    height = max(HEIGHT, TOP + 20 + 16 * len(result["trials"]))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="11">\n' + "\n".join(parts) + "\n</svg>\n",
        encoding="utf-8",
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
