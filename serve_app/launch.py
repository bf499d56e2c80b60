"""How a job becomes a Ray job: its command, its environment, and the file of its secrets."""

import json
import math
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.preparation import SPEC_FILE
from serve_app.ray_jobs import Submission
from serve_app.settings import Settings
from serve_app.store.tables import Job
from train import secrets
from train.registration import JOB_ID_KEY

SECRETS_FILE = "secrets.json"
# What the driver needs of the manager's own environment; everything else comes from its node.
PASSED_ON = ("PYTHONPATH", "HF_HUB_OFFLINE", "HF_HOME", "TOKENIZERS_PARALLELISM")


def submission(
    settings: Settings, job: Job, submission_id: str, secret_values: Mapping[str, str]
) -> Submission:
    """Write what the driver reads, and return what Ray is asked to run."""
    folder = settings.job_folder(job.id)
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / SPEC_FILE
    if not spec.exists():  # of a job that was not prepared here, but sent by `ray job submit`
        _write(spec, job.spec or {})
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= settings.grader_environment
    # Ray kills a driver that was asked to stop after so long; until then it commits.
    environment["RAY_JOB_STOP_WAIT_TIME_S"] = str(math.ceil(settings.stop_grace_s))
    runtime_env: dict[str, Any] = {"env_vars": environment}
    if passed := secrets.passed_on(secret_values):
        path = secrets_path(settings, job.id)
        secrets.write(path, passed)
        environment[secrets.SECRETS_FILE_VARIABLE] = str(path)
        runtime_env["worker_process_setup_hook"] = secrets.SETUP_HOOK
    command = [sys.executable, "-m", "train", "--spec", str(spec), "--out", job.out]
    return Submission(
        submission_id=submission_id,
        # Without the shell, Ray's child is the driver itself: whoever ends the one ends the other.
        entrypoint=f"exec {shlex.join(command)}",
        runtime_env=runtime_env,
        metadata={JOB_ID_KEY: job.id, "model": job.model},
    )


def secrets_path(settings: Settings, job_id: str) -> Path:
    """The file that holds the owner's secrets while an attempt lives."""
    return settings.job_folder(job_id) / SECRETS_FILE


def forget_secrets(settings: Settings, job_id: str) -> None:
    """Remove the file of the secrets; the attempt that needed it has ended."""
    secrets_path(settings, job_id).unlink(missing_ok=True)


def _write(path: Path, value: Any) -> None:
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    hidden.replace(path)
