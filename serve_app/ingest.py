"""Takes a driver's events into the store, each exactly once, and keeps the job's row in step.

Events and the position up to which the log was read are written in one transaction, so a manager
that dies has either taken an event or not. Killing the service never touches the driver.
"""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve_app.contract_events import (
    ContractEvent,
    StepNumbers,
    contract_event,
    same_content,
)
from serve_app.event_log import read_new
from serve_app.ids import new_id
from serve_app.model_names import checkpoint_name
from serve_app.store.events import add_event, event_with_key
from serve_app.store.tables import Job, JobCheckpoint, Model

EVENTS_FILE = "events.jsonl"
WORK = ("metrics", "evaluation")  # what progress counts


def has_news(job: Job) -> bool:
    """True when the job's log holds something that was not taken; only reads."""
    news = read_new(_log(job), job.log_position)
    return bool(news.events) or news.position.to_json() != job.log_position


def take_events(session: Session, job: Job, organization: str) -> int:
    """Take the next events of a locked job's log; return how many were read, 0 at its end."""
    news = read_new(_log(job), job.log_position)
    numbers = StepNumbers.of(job.spec, job.steps_planned)
    for event in news.events:
        translated = contract_event(event, numbers, job.spec)
        _take(session, job, event if isinstance(event, dict) else {}, translated, organization)
    if news.position.to_json() != job.log_position:
        job.log_position = news.position.to_json()
    return len(news.events)


def _log(job: Job) -> Path:
    return Path(job.out) / EVENTS_FILE


def _take(
    session: Session, job: Job, event: dict[str, Any], told: ContractEvent, organization: str
) -> None:
    earlier = event_with_key(session, job.id, told.key)
    if earlier is not None and same_content(earlier, told):
        return
    tokens_before = earlier.data.get("trained_tokens") or 0 if earlier is not None else 0
    new = add_event(
        session,
        job,
        key=told.key,
        message=told.message,
        level=told.level,
        type=told.type,
        data=told.data,
        created_at=told.created_at,
    )
    kind = event.get("type")
    if stage := event.get("stage"):
        job.stage = stage
    if new and kind in WORK:
        job.steps_done += 1
    if kind == "metrics":
        job.trained_tokens += (told.data.get("trained_tokens") or 0) - tokens_before
        job.metrics = told.data
    if kind == "checkpoint":
        _enter_checkpoint(session, job, event, told, organization)


def _enter_checkpoint(
    session: Session, job: Job, event: dict[str, Any], told: ContractEvent, organization: str
) -> None:
    """Write the checkpoint's row and its model's, and mark those that have lost their files."""
    step_number, path = told.data["step"], str(Path(job.out) / event["path"])
    name = checkpoint_name(job, organization, step_number)
    created_at = told.created_at or int(time.time())
    rows = {row.step_number: row for row in _rows(session, job.id, event["stage"])}
    if (row := rows.get(step_number)) is None:
        row = JobCheckpoint(
            id=new_id("ftckpt_"),
            job_id=job.id,
            step_number=step_number,
            stage=event["stage"],
            stage_step=event["step"],
            model=name,
            created_at=created_at,
        )
        session.add(row)
        rows[step_number] = row
        session.add(
            Model(
                name=name,
                project_id=job.project_id,
                job_id=job.id,
                kind="checkpoint",
                path=path,
                created_at=created_at,
            )
        )
    elif row.pruned_at is not None:
        row.pruned_at = None
        _set_deleted(session, name, None)
    row.path, row.metrics = path, told.data
    kept = set(event.get("kept") or [row.stage_step for row in rows.values()])
    for other in rows.values():
        if other.pruned_at is None and other.stage_step not in kept:
            other.pruned_at = created_at
            _set_deleted(session, other.model, created_at)
    session.flush()


def _rows(session: Session, job_id: str, stage: str) -> list[JobCheckpoint]:
    query = select(JobCheckpoint)
    return list(
        session.scalars(query.where(JobCheckpoint.job_id == job_id, JobCheckpoint.stage == stage))
    )


def _set_deleted(session: Session, name: str, at: int | None) -> None:
    model = session.get(Model, name)
    if model is not None:
        model.deleted_at = at
