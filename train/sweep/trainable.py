"""What Ray Tune runs: a trial that follows its job, and an ASHA that outlives a kill."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Trainable
from ray.tune.schedulers import AsyncHyperBandScheduler

from train.sweep.job import TRAIN, TrialJob
from train.sweep.trials import read_trial, trial_folder

METRIC, STEPS, NUMBER = "valid_reward", "steps", "trial"
# Of ASHA: it would stop a trial there, but a job ends by itself.
NEVER = 10**6


@dataclass(frozen=True)
class Place:
    """Where a sweep's trials run."""

    root: Path  # of the trials' folders
    slots: Path
    num_slots: int
    environment: dict[str, str]  # of the jobs: the sweep's own, not that of a Ray worker
    command: Sequence[str] = TRAIN

    def job(self, number: int) -> TrialJob:
        """A trial's job, which does not run yet."""
        folder = trial_folder(self.root, number)
        return TrialJob(folder, self.slots, self.num_slots, self.environment, self.command)


class SweepTrial(Trainable):
    """A step waits for the job's next validation.

    It keeps no checkpoint of its own: the job does. After a kill it tells its job's validations
    again, from the first, and so gives them to ASHA again.
    """

    def setup(self, config: dict[str, Any], place: Place | None = None) -> None:
        """Called by Tune; `config` names the trial, whose folder says the rest."""
        assert place is not None
        self._job = place.job(config[NUMBER])
        self._last: dict[str, Any] = {}

    def step(self) -> dict[str, Any]:
        """The next validation, or the last one again with `done`. Raises JobFailedError."""
        found = self._job.next_validation()
        if found is None:
            return {**self._last, "done": True}
        self._last = {STEPS: found.steps, METRIC: found.reward}
        return dict(self._last)

    def cleanup(self) -> None:
        """Called by Tune when the trial has ended or was stopped."""
        self._job.stop()


class FolderASHA(AsyncHyperBandScheduler):
    """ASHA whose rungs hold what earlier runs of the sweep saw.

    `Tuner.restore` brings no rungs back. Trials that go on tell their validations again; those that
    had ended are entered here from their folders, as Tune adds them.
    """

    def __init__(self, root: Path, grace_steps: int, reduction_factor: float) -> None:
        super().__init__(
            time_attr=STEPS,
            max_t=max(NEVER, grace_steps),
            grace_period=grace_steps,
            reduction_factor=reduction_factor,
        )
        self._root = root
        self._entered: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Tune for every trial, one after another: at a restoring, for ended ones too."""
        super().on_trial_add(tune_controller, trial)
        if trial.is_finished() and trial.trial_id not in self._entered:
            self._entered.add(trial.trial_id)
            for found in read_trial(trial_folder(self._root, trial.config[NUMBER])).validations:
                result = {STEPS: found.steps, METRIC: found.reward}
                self.on_trial_result(tune_controller, trial, result)
