"""What the folders of a sweep say: each trial's setting, validations, end and held-out samples."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from train import checkpoint
from train.events import read_events
from train.spec import JobSpec, SpecError
from train.spec_file import spec_to_json
from train.sweep.mix import draw
from train.sweep.spec import SweepSpec

SETTING_FILE, JOB_FILE, LOG_FILE, MIX_FILE, OUT = (
    "setting.json",
    "job.json",
    "job.log",
    "train.jsonl",
    "out",
)
REPORT_FILE, EVENTS_FILE, SAMPLES_FOLDER = "report.json", "events.jsonl", "heldout"  # of a job


class Validation(NamedTuple):
    """A job's validation."""

    steps: int  # optimizer steps taken, over all stages
    reward: float  # mean over the validation rows


@dataclass(frozen=True)
class Trial:
    """A trial as its folder shows it."""

    number: int  # 0 is the job as it stands
    setting: dict[str, Any]
    folder: Path
    validations: tuple[Validation, ...]
    finished: bool  # its report is written

    @property
    def best(self) -> Validation | None:
        """The first of its best validations, whose checkpoint the job exports; None: none yet."""
        return max(self.validations, key=lambda v: (v.reward, -v.steps), default=None)


def write_trials(spec: SweepSpec, root: Path) -> None:
    """Write every trial's folder: its setting, its job and, of a mix, its rows.

    Of a sweep that goes on too: files may stand elsewhere now, and how a job is run may change.
    """
    for number, setting in enumerate(spec.settings()):
        folder = trial_folder(root, number)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_json(folder / JOB_FILE, spec_to_json(trial_job(spec, setting, folder)))
        checkpoint.write_json(folder / SETTING_FILE, setting)


def trial_job(spec: SweepSpec, setting: dict[str, Any], folder: Path) -> JobSpec:
    """The job of a setting; of a mix, its rows are written into `folder`. Raises SpecError."""
    job = spec.job_of(setting)
    if spec.mix is None:
        return job
    hidden = folder / f".{MIX_FILE}"
    hidden.write_text(draw(spec.mix, spec.shares_of(setting), job.seed), encoding="utf-8")
    hidden.replace(folder / MIX_FILE)
    data = job.data.model_copy(update={"train": folder / MIX_FILE})
    return job.model_copy(update={"data": data})


def trial_folder(root: Path, number: int) -> Path:
    """Where a trial stands."""
    return root / f"{number:03d}"


def read_trials(root: Path) -> list[Trial]:
    """Every trial below `root`, in the order of their numbers."""
    return [read_trial(file.parent) for file in sorted(root.glob(f"*/{SETTING_FILE}"))]


def read_trial(folder: Path) -> Trial:
    """One trial."""
    return Trial(
        number=int(folder.name),
        setting=json.loads((folder / SETTING_FILE).read_text(encoding="utf-8")),
        folder=folder,
        validations=tuple(validations(folder / OUT)),
        finished=(folder / OUT / REPORT_FILE).exists(),
    )


def validations(out: Path) -> list[Validation]:
    """A job's validations so far, oldest first."""
    found, before, stage, last = [], 0, None, 0
    for event in read_events(out / EVENTS_FILE):
        if event.get("type") != "metrics":
            continue
        if event["stage"] != stage:
            before, stage = before + last, event["stage"]
        last = event["step"]
        reward = event.get("full_valid_mean_reward")
        if reward is not None:
            found.append(Validation(before + last, reward))
    return found


def heldout_marks(out: Path) -> dict[str, bool]:
    """Problem id -> solved, by the policy that a finished job ends with, greedily."""
    report = json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
    if not report["rows"]:
        raise SpecError(f"{out}: its report has no held-out rows; give the job data.heldout")
    file = out / SAMPLES_FOLDER / f"{report['rows'][-1]['name']}.jsonl"
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {sample["id"]: sample["solved"] for sample in samples}
