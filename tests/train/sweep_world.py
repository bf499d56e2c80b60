"""What tests of sweeps share: files, the fake job, processes."""

import json
import os
import sys
import time
from pathlib import Path

import yaml
from conftest import JOB, ROOT

from train.sweep.job import TrialJob

FAKE = (sys.executable, str(Path(__file__).with_name("fake_job.py")))
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
DEADLINE_S = 300


def write(folder: Path, **fields: object) -> Path:
    raw = {"job": str(JOB), "parameters": {"srl.learning_rate": {"loguniform": [1e-5, 1e-3]}}}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(raw | fields))
    return path


def wait_until(holds, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def log(folder: Path, *points: tuple[str, int, float | None]) -> None:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    lines = [
        {"type": "metrics", "stage": stage, "step": step, "full_valid_mean_reward": reward}
        for stage, step, reward in points
    ]
    text = "".join(json.dumps(line) + "\n" for line in [{"type": "message"}, *lines])
    (folder / "out" / "events.jsonl").write_text(text)


def fake_trial(folder: Path, rate: float, max_steps: int = 3) -> Path:
    folder.mkdir(parents=True)
    job = {"srl": {"learning_rate": rate, "max_steps": max_steps}}
    (folder / "job.json").write_text(json.dumps(job))
    (folder / "setting.json").write_text("{}")
    return folder


def fake_job(folder: Path, *, slots: int = 1, step_s: float = 0.05) -> TrialJob:
    environment = ENVIRONMENT | {"FAKE_STEP_S": str(step_s)}
    return TrialJob(folder, folder.parent / "slots", slots, environment, FAKE)


def starts(folder: Path) -> list[tuple[int, int]]:
    """(process id, steps found) of each start of the fake job."""
    file = folder / "out" / "starts"
    if not file.exists():
        return []
    return [tuple(map(int, line.split())) for line in file.read_text().splitlines()]
