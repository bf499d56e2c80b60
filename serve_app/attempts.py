"""What the end of an attempt means for its job. Decisions are pure; each is one transaction."""

import re
import signal
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve_app.job_state import JobStatus
from serve_app.ray_jobs import RayJob
from serve_app.retry import RetryPolicy
from serve_app.store.events import storable
from serve_app.store.jobs import attempts, get_job, set_status
from serve_app.store.tables import Attempt, Job
from train.claim import BUSY_EXIT_CODE

REFUSED_EXIT_CODE = 2
MAX_REASON_CHARS = 2000
_SHELL_SIGNAL = 128  # a shell adds it to the number of the signal that ended its command


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended: the status of its row, and why in words."""

    status: str  # stopped, failed, lost, busy, refused
    reason: str


def live_attempt(session: Session, job_id: str) -> Attempt | None:
    """The attempt whose Ray job may still be running."""
    query = select(Attempt).where(Attempt.job_id == job_id, Attempt.ended_at.is_(None))
    return session.scalar(query)


def locked(session: Session, submission_id: str) -> tuple[Job, Attempt] | None:
    """The attempt and its job, locked; None when the attempt has ended already."""
    query = select(Attempt).where(Attempt.submission_id == submission_id)
    attempt = session.scalar(query)
    if attempt is None:
        return None
    job = get_job(session, attempt.job_id, lock=True)
    session.refresh(attempt)
    return None if job is None or attempt.ended_at is not None else (job, attempt)


def is_external(attempt: Attempt) -> bool:
    """True for a Ray job that was not launched here, but sent by `ray job submit`."""
    return attempt.submission_id != f"{attempt.job_id}-{attempt.number}"


def end_of(ray_job: RayJob) -> AttemptEnd:
    """How the attempt ended that Ray says has ended, or does not know any more."""
    if ray_job.status == "unknown":
        return AttemptEnd("lost", "Ray does not know it any more: the cluster was started again")
    if ray_job.status == "stopped":
        return AttemptEnd("stopped", "it was stopped")
    code = ray_job.exit_code
    if code is None:
        return AttemptEnd("lost", f"its driver was lost: {_short(ray_job.message)}")
    if code == REFUSED_EXIT_CODE:
        return AttemptEnd("refused", error_text(ray_job.message))
    if code == BUSY_EXIT_CODE:
        return AttemptEnd("busy", error_text(ray_job.message))
    signal_number = -code if code < 0 else code - _SHELL_SIGNAL
    if 0 < signal_number <= signal.SIGRTMAX:
        return AttemptEnd("failed", f"its driver was ended by signal {signal_number}")
    return AttemptEnd("failed", f"exit code {code}: {error_text(ray_job.message)}")


def close(
    session: Session,
    job: Job,
    attempt: Attempt,
    end: AttemptEnd,
    policy: RetryPolicy,
    now: float,
) -> None:
    """End a locked attempt that did not succeed, and lead its job on.

    What a client asked for comes first: a job that was to be paused or cancelled is, however its
    attempt ended. An attempt that nobody here stopped, `ray job stop` did: the job is paused.
    """
    attempt.status, attempt.ended_at = end.status, int(now)
    attempt.reason = storable(end.reason[:MAX_REASON_CHARS])
    steps = f"{job.steps_done} of {job.steps_planned} steps done"
    if job.requested == "cancel":
        set_status(session, job, JobStatus.CANCELLED, message=f"The job was cancelled; {steps}")
    elif job.requested == "pause":
        set_status(session, job, JobStatus.PAUSED, message=f"The job was paused; {steps}")
    elif end.status == "stopped":
        wanted = JobStatus.CANCELLED if is_external(attempt) else JobStatus.PAUSED
        message = f"The Ray job was stopped from outside: the job is {wanted.value}; {steps}"
        set_status(session, job, wanted, message=message, level="warn")
    elif is_external(attempt):
        message = f"{end.reason}; send it again with the same --out to continue"
        set_status(session, job, JobStatus.FAILED, message=message, error=_error(end, message))
    else:
        _retry_or_fail(session, job, attempt, end, policy)


def _retry_or_fail(
    session: Session, job: Job, attempt: Attempt, end: AttemptEnd, policy: RetryPolicy
) -> None:
    session.flush()
    decision = policy.decide(attempts(session, job.id), job.steps_done)
    if decision.action == "fail":
        message = end.reason if end.status == "refused" else f"{end.reason} ({decision.reason})"
        told = f"Attempt {attempt.number} ended, and the job with it: {message}"
        set_status(session, job, JobStatus.FAILED, message=told, error=_error(end, message))
        return
    message = f"Attempt {attempt.number} ended: {end.reason}. {decision.reason}"
    set_status(session, job, JobStatus.QUEUED, message=message, level="warn")


def _error(end: AttemptEnd, message: str) -> dict[str, Any]:
    code = {"refused": "invalid_job", "lost": "driver_lost"}.get(end.status, "training_failed")
    return {"code": code, "message": message[:MAX_REASON_CHARS], "param": None}


def error_text(log_tail: str) -> str:
    """What a driver said last: from its last `error: ` line on, else its last line."""
    text = log_tail.strip()
    found = list(re.finditer(r"^error: ", text, re.MULTILINE))
    if found:
        return _short(text[found[-1].end() :])
    return _short(text.splitlines()[-1] if text else "it said nothing")


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_REASON_CHARS else text[:MAX_REASON_CHARS] + "..."
