"""What tests of whole jobs share: a small job's command, how it is run, frozen and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import JOB, ROOT

from train.events import read_events

SMALL = (
    "srl.max_steps=6",
    "srl.groups_per_step=16",
    "srl.learning_rate=3.0e-4",
    "srl.eval_interval=3",
    "srl.save_interval=1",
    "rlvr.max_steps=2",
    "rlvr.groups_per_step=4",
    "rlvr.max_sampling_rounds=1",
    "rlvr.eval_interval=2",
    "rollout.kv_cache_gib=0.25",
    "evaluation.pass_k=2",
)
DEADLINE_S = 600


def small_job(out: Path, tmp: Path, *extra: str) -> list[str]:
    """The command of a job of a few steps on a few rows."""
    command = [sys.executable, "-m", "train", "--spec", str(JOB), "--out", str(out)]
    settings = list(SMALL)
    for stem, count in (("valid", 20), ("heldout", 60)):
        lines = (JOB.parent / f"{stem}.jsonl").read_text().splitlines(keepends=True)
        (tmp / f"{stem}.jsonl").write_text("".join(lines[:count]))
        settings.append(f"data.{stem}={tmp / stem}.jsonl")
    return command + [part for s in (*settings, *extra) for part in ("--set", s)]


def run(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def train_steps(out: Path, stage: str) -> list[int]:
    events = read_events(out / "events.jsonl")
    return [e["step"] for e in events if e["type"] == "metrics" and e["stage"] == stage]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=quiet, stderr=quiet)


def freeze_worker(
    process: subprocess.Popen[bytes], out: Path, phase: str, step: int, stage: str = "srl"
) -> int:
    """Stop the learner in `phase` of a stage's step after `step`; return its process id.

    The worker tells its phase before it enters it, so a stopped worker is where `now.json` says.
    """
    deadline = time.monotonic() + DEADLINE_S
    while True:
        assert process.poll() is None, "the job ended before it could be stopped"
        assert time.monotonic() < deadline
        now = json.loads((out / "now.json").read_text()) if (out / "now.json").exists() else {}
        if (now.get("stage"), now.get("phase")) == (stage, phase) and now["step"] >= step:
            os.kill(now["pid"], signal.SIGSTOP)
            hidden = any((out / stage / "checkpoints").glob(".writing-*/*"))
            later = json.loads((out / "now.json").read_text())
            if later == now and (phase != "checkpoint" or hidden):
                return now["pid"]
            os.kill(now["pid"], signal.SIGCONT)
        time.sleep(0.001)
