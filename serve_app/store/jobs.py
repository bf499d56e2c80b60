"""Jobs, attempts and checkpoints: every query over them.

Functions take an open session, so that a caller joins several into one transaction. Those that
read for a client take the client's project and see nothing else.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from serve_app.ids import new_id
from serve_app.job_state import TERMINAL, JobStatus, WrongStateError, transition
from serve_app.store.events import add_event, storable
from serve_app.store.tables import Attempt, Event, Job, JobCheckpoint, Model

OPEN = [status.value for status in JobStatus if status not in TERMINAL]


def create_job(session: Session, job: Job) -> Job:
    """Write a new job with its first event."""
    session.add(job)
    session.flush()
    add_event(session, job, key="created", message=f"Created fine-tuning job: {job.id}")
    return job


def new_job(
    *,
    project_id: str | None,
    request: dict[str, Any],
    out: str,
    model: str,
    seed: int,
    training_file: str | None = None,
    validation_file: str | None = None,
    metadata: dict[str, str] | None = None,
    job_id: str | None = None,
) -> Job:
    """Return a job that stands at its beginning, not yet written."""
    return Job(
        id=job_id or new_id("ftjob-"),
        project_id=project_id,
        status=JobStatus.VALIDATING.value,
        request=request,
        out=out,
        model=model,
        seed=seed,
        training_file=training_file,
        validation_file=validation_file,
        result_files=[],
        job_metadata=metadata or {},
        steps_done=0,
        steps_planned=0,
        trained_tokens=0,
        next_event_seq=1,
        log_position={},
        created_at=int(time.time()),
    )


def get_job(
    session: Session, job_id: str, project_id: str | None = None, *, lock: bool = False
) -> Job | None:
    """Return the job; with `project_id`, only when it is that project's.

    `lock` keeps other writers of the row away until the transaction ends, and reads what they
    wrote before, also into a row that this session holds already.
    """
    query = select(Job).where(Job.id == job_id)
    if project_id is not None:
        query = query.where(Job.project_id == project_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.scalar(query)


def list_jobs(
    session: Session,
    project_id: str | None,
    *,
    after: str | None = None,
    limit: int = 20,
    metadata: Mapping[str, str] | None = None,
) -> tuple[list[Job], bool]:
    """Return (jobs, whether more follow), newest first. `project_id` None: all projects'.

    Raises KeyError for an `after` that is no job of the project.
    """
    query = select(Job).order_by(Job.seq.desc())
    if project_id is not None:
        query = query.where(Job.project_id == project_id)
    if after is not None:
        cursor = get_job(session, after, project_id)
        if cursor is None:
            raise KeyError(after)
        query = query.where(Job.seq < cursor.seq)
    for key, value in (metadata or {}).items():
        query = query.where(_has_metadata(session, key, value))
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], len(found) > limit


def _has_metadata(session: Session, key: str, value: str) -> ColumnElement[bool]:
    if session.get_bind().dialect.name != "sqlite":
        return Job.job_metadata[key].as_string() == value
    # SQLite's JSON paths have no way to write a quote, a backslash or a letter beyond ASCII.
    pair = func.json_each(Job.job_metadata).table_valued("key", "value")
    return select(pair.c.key).where(pair.c.key == key, pair.c.value == value).exists()


def open_jobs(session: Session) -> list[Job]:
    """Every job that has not ended, oldest first: what the manager looks after."""
    return list(session.scalars(select(Job).where(Job.status.in_(OPEN)).order_by(Job.seq)))


def num_open_jobs(session: Session, project_id: str) -> int:
    """How many of a project's jobs have not ended."""
    query = select(func.count()).select_from(Job)
    return session.scalar(query.where(Job.project_id == project_id, Job.status.in_(OPEN))) or 0


def set_status(
    session: Session,
    job: Job,
    wanted: JobStatus,
    *,
    message: str,
    error: dict[str, Any] | None = None,
    level: str = "info",
) -> None:
    """Change a locked job's status, with an event that says so. Raises WrongStateError."""
    now = int(time.time())
    current = JobStatus(job.status)
    if transition(current, wanted) is current:
        return
    job.status = wanted.value
    if wanted is JobStatus.RUNNING and job.started_at is None:
        job.started_at = now
    if wanted.terminal:
        job.finished_at = now
    if wanted is not JobStatus.RUNNING:
        job.requested = None
    if error is not None:
        job.error = error | {"message": storable(error["message"])}
    add_event(session, job, message=message, level="error" if error else level)


def request_stop(session: Session, job: Job, what: str) -> None:
    """Ask for "cancel" or "pause" of a locked job; at once where nothing runs.

    A running job keeps its status until its checkpoint is committed. A cancel overrules a pause
    that is under way, and asking again changes nothing. Raises WrongStateError.
    """
    wanted = JobStatus.CANCELLED if what == "cancel" else JobStatus.PAUSED
    current = JobStatus(job.status)
    if current is wanted:
        return
    transition(current, wanted)
    if current is not JobStatus.RUNNING and not has_live_attempt(session, job.id):
        set_status(session, job, wanted, message=f"The job was {wanted.value}")
    elif job.requested != what:
        if job.requested == "cancel":
            raise WrongStateError(current, f"{wanted.value}: it is being cancelled")
        job.requested = what
        doing = "Cancelling" if what == "cancel" else "Pausing"
        add_event(session, job, message=f"{doing}: a checkpoint is committed first")


def resume(session: Session, job: Job) -> None:
    """Let a locked, paused job go on from its checkpoint. Raises WrongStateError.

    To ask again while it waits for room changes nothing.
    """
    current = JobStatus(job.status)
    if current is JobStatus.QUEUED and job.requested is None:
        return
    if current is not JobStatus.PAUSED:
        doing = ": it is still being paused" if job.requested == "pause" else ""
        raise WrongStateError(current, f"resumed{doing}")
    set_status(session, job, JobStatus.QUEUED, message="The job goes on from its checkpoint")


def submission_ids(session: Session, job_ids: Sequence[str]) -> dict[str, str]:
    """The Ray job of each job's newest attempt; a job that was never launched is left out."""
    query = select(Attempt).where(Attempt.job_id.in_(job_ids)).order_by(Attempt.number)
    return {attempt.job_id: attempt.submission_id for attempt in session.scalars(query)}


def was_base_of_a_job(session: Session, project_id: str, model: str) -> bool:
    """True when one of the project's jobs was checked, model included, and starts from `model`."""
    query = select(Job.id).where(Job.project_id == project_id, Job.model == model)
    return session.scalar(query.where(Job.spec.is_not(None)).limit(1)) is not None


def has_live_attempt(session: Session, job_id: str) -> bool:
    """True when a Ray job of this job may still be running."""
    query = select(Attempt).where(Attempt.job_id == job_id, Attempt.ended_at.is_(None))
    return session.scalar(query.limit(1)) is not None


def live_job_ids(session: Session) -> set[str]:
    """The jobs that have a live attempt."""
    return set(session.scalars(select(Attempt.job_id).where(Attempt.ended_at.is_(None))))


def jobs_at_work(session: Session) -> list[tuple[Job, Attempt | None]]:
    """Jobs with their live attempts, and new jobs that are yet to be prepared; oldest first."""
    unprepared = and_(
        Job.status.in_([JobStatus.VALIDATING.value, JobStatus.QUEUED.value]),
        Job.steps_planned == 0,
    )
    live = and_(Attempt.job_id == Job.id, Attempt.ended_at.is_(None))
    query = select(Job, Attempt).outerjoin(Attempt, live).order_by(Job.seq)
    found = session.execute(query.where(or_(unprepared, Attempt.number.is_not(None))))
    return [(job, attempt) for job, attempt in found]


def attempts(session: Session, job_id: str) -> list[Attempt]:
    """Every attempt of a job, in order."""
    query = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)
    return list(session.scalars(query))


def checkpoints(
    session: Session, job_id: str, *, after: str | None = None, limit: int = 10
) -> tuple[list[JobCheckpoint], bool]:
    """Return (checkpoints that still have their files, whether more follow), newest first.

    Raises KeyError for an `after` that is no checkpoint of the job.
    """
    query = (
        select(JobCheckpoint)
        .where(JobCheckpoint.job_id == job_id, JobCheckpoint.pruned_at.is_(None))
        .order_by(JobCheckpoint.step_number.desc())
    )
    if after is not None:
        # A checkpoint that was pruned in the meantime still marks its place.
        cursor = session.scalar(
            select(JobCheckpoint).where(JobCheckpoint.id == after, JobCheckpoint.job_id == job_id)
        )
        if cursor is None:
            raise KeyError(after)
        query = query.where(JobCheckpoint.step_number < cursor.step_number)
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], len(found) > limit


def metrics_events(session: Session, job_id: str) -> Sequence[Event]:
    """The job's metrics, oldest first."""
    query = select(Event).where(Event.job_id == job_id, Event.type == "metrics")
    return session.scalars(query.order_by(Event.seq)).all()


def get_model(session: Session, name: str, project_id: str) -> Model | None:
    """Return a model that this project trained."""
    query = select(Model).where(Model.name == name, Model.project_id == project_id)
    return session.scalar(query.where(Model.deleted_at.is_(None)))


def list_models(session: Session, project_id: str) -> list[Model]:
    """Every model that this project trained, newest first."""
    query = select(Model).where(Model.project_id == project_id, Model.deleted_at.is_(None))
    return list(session.scalars(query.order_by(Model.created_at.desc(), Model.name)))
