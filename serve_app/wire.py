"""Rows as clients read them: the objects of the HTTP contract, as JSON values.

Pure functions from rows; nothing here reads the store. What Ferrata adds to an object stands beside
the standard fields and never changes one.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from serve_app.job_state import JobStatus
from serve_app.store.tables import Event, Job, JobCheckpoint, Model

# Fields of the create call that the job object shows as they are, beside the standard ones.
EXTRAS = (
    "heldout_file",
    "srl",
    "rlvr",
    "sft",
    "num_examples",
    "teacher",
    "more_examples",
    "documents",
    "prompt",
    "sampling",
    "evaluation",
    "resources",
)


def page(items: Sequence[Mapping[str, Any]], has_more: bool, **more: Any) -> dict[str, Any]:
    """A list's envelope."""
    return {"object": "list", "data": list(items), "has_more": has_more, **more}


def progress(job: Job) -> float:
    """Work done over work planned, 0 to 1; 1 exactly when the job succeeded."""
    if job.status == JobStatus.SUCCEEDED.value:
        return 1.0
    if not job.steps_planned:
        return 0.0
    # The last unit is the end itself: all steps done is not yet a model that can be had.
    return min(job.steps_done / job.steps_planned, 1 - 0.5 / job.steps_planned)


def estimated_finish(job: Job) -> int | None:
    """When a running job may end, Unix seconds: what is left, each as long as the newest step."""
    timing = ((job.metrics or {}).get("timing") or {}).get("step") or {}
    step_s = timing.get("full_iteration")
    if job.status != JobStatus.RUNNING.value or not step_s:
        return None
    return math.ceil(time.time() + max(1, job.steps_planned - job.steps_done) * step_s)


def job_object(job: Job, organization: str, ray_job_id: str | None) -> dict[str, Any]:
    """A fine-tuning job."""
    asked: dict[str, Any] = {**job.request, **(job.request.get("resolved") or {})}
    method = asked.get("method")
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "model": job.model,
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": organization,
        "status": job.status,
        "error": job.error,
        "hyperparameters": {},  # the old place, of supervised jobs
        "training_file": job.training_file or "",
        "validation_file": job.validation_file,
        "result_files": list(job.result_files),
        "trained_tokens": job.trained_tokens or None,
        "seed": job.seed,
        "estimated_finish": estimated_finish(job),
        "integrations": asked.get("integrations"),
        "method": method,
        "metadata": dict(job.job_metadata),
        "user_provided_suffix": asked.get("suffix"),
        "usage_metrics": None,
        **{name: asked[name] for name in EXTRAS if name in asked},
        "stage": job.stage,
        "progress": progress(job),
        "metrics": job.metrics,
        "ray_job_id": ray_job_id,
    }


def status_object(job: Job) -> dict[str, Any]:
    """A job in the flat fields of the native routes."""
    failed = job.status == JobStatus.FAILED.value
    succeeded = job.status == JobStatus.SUCCEEDED.value
    return {
        "id": job.id,
        "job_id": job.id,
        "status": job.status,
        "stage": job.stage,
        "progress": progress(job),
        "metrics": job.metrics,
        "model": job.fine_tuned_model or job.model,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.finished_at if succeeded else None,
        "failed_at": job.finished_at if failed else None,
        "cancelled_at": None if succeeded or failed else job.finished_at,
        "error": job.error,
    }


def started(job: Job, message: str) -> dict[str, Any]:
    """The answer to a native call that starts or stops a job."""
    return {"job_id": job.id, "status": job.status, "message": message}


def event_object(event: Event) -> dict[str, Any]:
    """One event of a job."""
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }


def checkpoint_object(checkpoint: JobCheckpoint) -> dict[str, Any]:
    """One checkpoint of a job, whose model can be asked."""
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": checkpoint.created_at,
        "fine_tuned_model_checkpoint": checkpoint.model,
        "fine_tuning_job_id": checkpoint.job_id,
        "step_number": checkpoint.step_number,
        "metrics": {"step": checkpoint.step_number, **checkpoint.metrics},
        "stage": checkpoint.stage,
    }


def metrics_object(event: Event) -> dict[str, Any]:
    """One step's figures."""
    return {"id": event.id, "created_at": event.created_at, **event.data}


def base_model_object(name: str, organization: str) -> dict[str, Any]:
    """A model that this service starts from."""
    return {"id": name, "object": "model", "created": 0, "owned_by": organization}


def model_object(model: Model, organization: str) -> dict[str, Any]:
    """A model that was trained here."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_at,
        "owned_by": organization,
        "fine_tuning_job_id": model.job_id,
        "kind": model.kind,
    }
