"""A job that was sent by `ray job submit` tells the service of its cluster that it exists.

The service, if there is one, is known here only by the name of an actor. Without it the job runs
just the same.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

MANAGER_NAME, NAMESPACE = "ferrata-manager", "ferrata"
JOB_ID_KEY = "ferrata_job_id"  # in the metadata of Ray jobs that the service itself started
REGISTER_DEADLINE_S = 60.0
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the driver of a submitted job


def submitted_job(environment: Mapping[str, str] = os.environ) -> str | None:
    """The submission id, when this process is a Ray job that no service started; else None."""
    if not environment.get("RAY_ADDRESS") or _JOB_CONFIG not in environment:
        return None
    metadata = json.loads(environment[_JOB_CONFIG]).get("metadata") or {}
    return None if JOB_ID_KEY in metadata else metadata.get("job_submission_id")


def register(out: Path, spec: dict[str, Any], steps_planned: int) -> None:
    """Enter this job into the service's history, where there is a service; never waits for it.

    Call it when connected to the cluster. `spec` is the whole specification as JSON values.
    """
    submission_id = submitted_job()
    if submission_id is not None:
        args = (submission_id, str(out), spec, steps_planned)
        Thread(target=_register, args=args, daemon=True).start()


def _register(submission_id: str, out: str, spec: dict[str, Any], steps_planned: int) -> None:
    import ray

    try:
        manager = ray.get_actor(MANAGER_NAME, namespace=NAMESPACE)
    except ValueError:
        return  # this cluster has no service
    try:
        call = manager.register_external.remote(submission_id, out, spec, steps_planned)
        ray.get(call, timeout=REGISTER_DEADLINE_S)
    # Acceptable: the job itself lacks nothing; only the service's history lacks the job.
    except Exception as error:
        print(
            f"warning: the service on this cluster did not enter job {submission_id} into its "
            f"history within {REGISTER_DEADLINE_S:.0f} s: {error}",
            file=sys.stderr,
        )
