"""Names of trained models: `ft:<base>:<organization>:<suffix>:<8 characters of the job's id>`."""

from serve_app.store.tables import Job

_ID_LENGTH = 8


def fine_tuned_name(job: Job, organization: str) -> str:
    """The name of the job's result; the suffix may be empty. A tuned model's own base stays."""
    base = job.model.split(":")[1] if job.model.startswith("ft:") else job.model
    suffix = job.request.get("suffix") or ""
    return f"ft:{base}:{organization}:{suffix}:{job.id[-_ID_LENGTH:]}"


def checkpoint_name(job: Job, organization: str, step_number: int) -> str:
    """The name of the model at a step, counted over the whole job."""
    return f"{fine_tuned_name(job, organization)}:ckpt-step-{step_number}"
