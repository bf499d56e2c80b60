"""A sweep's result as a table and as a picture of every trial's validations."""

from pathlib import Path
from typing import Any

from rich.table import Table

PICTURE = "sweep.png"


def table(result: dict[str, Any]) -> Table:
    """One line a trial, best first."""
    shown = Table(title="Trials", caption=result["verdict"])
    names = list(result["trials"][0]["parameters"])
    for name in ("trial", *names, "validation", "steps", ""):
        shown.add_column(name, justify="left" if name in ("trial", "") else "right")
    for trial in sorted(result["trials"], key=lambda t: -t["best_valid_reward"]):
        marks = [
            word
            for word, holds in (
                ("default", trial["default"]),
                ("best", trial["name"] == result["best"]),
                ("stopped early", not trial["finished"]),
            )
            if holds
        ]
        values = [_short(trial["parameters"][name]) for name in names]
        shown.add_row(
            trial["name"],
            *values,
            f"{trial['best_valid_reward']:.3f}",
            str(trial["last_step"]),
            ", ".join(marks),
        )
    return shown


def draw(result: dict[str, Any], path: Path) -> None:
    """Validation reward over optimizer steps, a line a trial."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for trial in result["trials"]:
        if not trial["validations"]:
            continue
        steps, rewards = zip(*trial["validations"], strict=True)
        label = ", ".join(f"{n}={_short(v)}" for n, v in trial["parameters"].items())
        strong = trial["default"] or trial["name"] == result["best"]
        label += " (default)" if trial["default"] else ""
        label += " (best)" if trial["name"] == result["best"] else ""
        axes.plot(
            steps, rewards, marker="o", linewidth=2.5 if strong else 1, alpha=1 if strong else 0.5,
            label=label,
        )  # fmt: skip
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("mean validation reward")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
