"""What the folders of a sweep say: each trial's validations, its end, its best weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.events import read_events

SETTING_FILE = "trial.json"


@dataclass(frozen=True)
class Trial:
    """A trial as its folder shows it."""

    name: str
    parameters: dict[str, Any]
    is_default: bool
    folder: Path
    validations: tuple[tuple[int, float], ...]  # (optimizer step over all stages, mean reward)
    finished: bool

    @property
    def best(self) -> float:
        """The best validation; -1 when there was none."""
        return max((reward for _, reward in self.validations), default=-1.0)

    @property
    def last_step(self) -> int:
        """Steps up to the newest validation."""
        return self.validations[-1][0] if self.validations else 0


def write_setting(folder: Path, parameters: dict[str, Any], *, is_default: bool) -> None:
    """Say what a trial's folder is, before anything else is written there."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{SETTING_FILE}"
    hidden.write_text(json.dumps({"parameters": parameters, "default": is_default}) + "\n")
    hidden.replace(folder / SETTING_FILE)


def read_trials(root: Path) -> list[Trial]:
    """Every trial below `root`, in the order of their names."""
    trials = []
    for file in sorted(root.glob(f"*/{SETTING_FILE}")):
        said = json.loads(file.read_text(encoding="utf-8"))
        out = file.parent / "out"
        trials.append(
            Trial(
                name=file.parent.name,
                parameters=said["parameters"],
                is_default=said["default"],
                folder=out,
                validations=tuple(validations(out)),
                finished=(out / "report.json").exists(),
            )
        )
    return trials


def validations(out: Path) -> list[tuple[int, float]]:
    """(step over all stages, mean validation reward), oldest first."""
    found, done, stage, last = [], 0, None, 0
    for event in read_events(out / "events.jsonl"):
        if event.get("type") != "metrics":
            continue
        if event["stage"] != stage:
            done, stage = done + last, event["stage"]
        last = event["step"]
        reward = event.get("full_valid_mean_reward")
        if reward is not None:
            found.append((done + last, reward))
    return found
