"""What a person sees while a sweep runs: a line for each validation and each end of a trial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from train.sweep.trainable import METRIC, NUMBER, STEPS
from train.sweep.trials import read_trial, trial_folder


class TrialLines(Callback):
    """Calls `say` with each line."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self._root, self._say = root, say

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any):
        """Called by Tune."""
        if STEPS in result and not result.get("done"):
            said = f"step {result[STEPS]}, validation {result[METRIC]:.3f}"
            self._say(f"trial {trial.config[NUMBER]}: {said}")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any):
        """Called by Tune."""
        finished = read_trial(trial_folder(self._root, trial.config[NUMBER])).finished
        self._say(f"trial {trial.config[NUMBER]}: {'finished' if finished else 'stopped by ASHA'}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any):
        """Called by Tune."""
        self._say(f"trial {trial.config[NUMBER]}: failed")
