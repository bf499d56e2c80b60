"""Jobs that were sent to the cluster by `ray job submit`, past this service, enter its history."""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from serve_app.job_state import JobStatus
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.jobs import create_job, new_job, set_status
from serve_app.store.tables import Attempt, Project


def register(
    database: Database,
    settings: Settings,
    submission_id: str,
    out: str,
    spec: dict[str, Any],
    steps_planned: int,
) -> None:
    """Write the job, as running, unless its submission is known already.

    It belongs to `settings.submitted_jobs_project`; while there is no such project, to nobody.
    """
    try:
        with database.write() as session:
            query = select(Attempt.number).where(Attempt.submission_id == submission_id)
            if session.scalar(query) is None:
                _write(session, settings, submission_id, out, spec, steps_planned)
    except IntegrityError:
        return  # another manager has just entered it


def _write(
    session: Session,
    settings: Settings,
    submission_id: str,
    out: str,
    spec: dict[str, Any],
    steps_planned: int,
) -> None:
    owner = select(Project.id).where(Project.name == settings.submitted_jobs_project)
    model = _model_name(settings, spec["model"])
    job = new_job(
        project_id=session.scalar(owner),
        request={"model": model},
        out=out,
        model=model,
        seed=spec["seed"],
    )
    job.spec, job.steps_planned = spec, steps_planned
    create_job(session, job)
    message = f"Sent to the cluster as Ray job {submission_id}"
    set_status(session, job, JobStatus.QUEUED, message=message)
    session.add(
        Attempt(
            job_id=job.id,
            number=1,
            submission_id=submission_id,
            status="running",
            steps_done_at_start=0,
            created_at=int(time.time()),
        )
    )
    set_status(session, job, JobStatus.RUNNING, message="The job is running")


def _model_name(settings: Settings, model: str) -> str:
    """The name of a model that the specification gives as a folder."""
    names = {folder: name for name, folder in settings.models.items()}
    return names.get(model) or (Path(model).name if model.startswith("/") else model)
