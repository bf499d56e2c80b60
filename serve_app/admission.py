"""Who may start: first come, first served, as far as the cluster has room.

A job that does not fit keeps its place, and later ones wait behind it: otherwise small jobs could
keep a large one waiting for ever. A project at its own limit, or a job that waits out a retry's
delay, holds nobody else up.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve_app.job_state import JobStatus
from serve_app.retry import RetryPolicy
from serve_app.settings import Settings
from serve_app.store.events import add_event, event_with_key
from serve_app.store.jobs import attempts, set_status
from serve_app.store.tables import Attempt, Job

if TYPE_CHECKING:
    from train.spec import JobSpec

# A cluster that was started again gets its nodes back one by one.
UNFIT_PATIENCE_S = 120.0
ADMISSIBLE = (JobStatus.QUEUED.value, JobStatus.RUNNING.value)
_log = logging.getLogger(__name__)


class Admission:
    """Decides over the whole queue at once, inside one transaction."""

    def __init__(self, settings: Settings, policy: RetryPolicy) -> None:
        self._settings, self._policy = settings, policy
        self._specs: dict[str, JobSpec | None] = {}  # of jobs in the store; never changes
        self._unfit_since: dict[str, float] = {}  # job id -> when it first asked for too much

    def admit(self, session: Session, cluster: Mapping[str, float], now: float) -> list[str]:
        """Write an attempt for every job that may start; return their submission ids.

        The rows are locked, so that two managers do not fill the same room.
        """
        query = select(Job).where(Job.status.in_(ADMISSIBLE)).order_by(Job.seq)
        query = query.where(Job.steps_planned > 0)  # prepared
        jobs = list(session.scalars(query.with_for_update()))
        running = [job for job in jobs if _live(session, job.id)]
        running_ids = {job.id for job in running}
        free = Counter(cluster)
        for job in running:
            free.subtract(self._asked(job))
        per_project = Counter(job.project_id for job in running)
        started: list[str] = []
        for job in jobs:
            if job.id in running_ids or job.status != JobStatus.QUEUED.value:
                continue
            earlier = attempts(session, job.id)
            if self._policy.due_at(earlier, job.steps_done) > now:
                continue
            if self._is_unfit(session, job, earlier, cluster, now):
                continue
            if per_project[job.project_id] >= self._settings.max_running_jobs_per_project:
                limit = self._settings.max_running_jobs_per_project
                _tell(session, job, earlier, f"the project's limit of {limit} running jobs")
                continue
            if (reason := self._no_room(job, len(running) + len(started), free)) is not None:
                _tell(session, job, earlier, reason)
                break
            started.append(_start(session, job, earlier, now))
            per_project[job.project_id] += 1
            free.subtract(self._asked(job))
        self._forget({job.id for job in jobs})
        return started

    def _no_room(self, job: Job, num_running: int, free: Counter[str]) -> str | None:
        """Why the job cannot start now; None when it can."""
        if num_running >= self._settings.max_running_jobs:
            return f"the cluster's limit of {self._settings.max_running_jobs} running jobs"
        lacking = [
            f"{amount:g} {kind}s of which {max(0.0, free[kind]):g} are free"
            for kind, amount in self._asked(job).items()
            if amount > free[kind] + 1e-9
        ]
        return f"room on the cluster: it asks for {', '.join(lacking)}" if lacking else None

    def _is_unfit(
        self,
        session: Session,
        job: Job,
        earlier: list[Attempt],
        cluster: Mapping[str, float],
        now: float,
    ) -> bool:
        """True when the whole cluster is too small for the job.

        A job that never ran fails then, unless the cluster grows soon; one that did run waits: the
        cluster was large enough before.
        """
        from train.preflight import check_cluster
        from train.spec import SpecError

        spec = self._spec(job)
        try:
            if spec is not None:
                check_cluster(spec, cluster)
        except SpecError as error:
            since = self._unfit_since.setdefault(job.id, now)
            _tell(session, job, earlier, f"a larger cluster: {error}")
            if not earlier and now - since >= UNFIT_PATIENCE_S:
                told = {"code": "insufficient_resources", "message": str(error), "param": None}
                set_status(session, job, JobStatus.FAILED, message=str(error), error=told)
            return True
        self._unfit_since.pop(job.id, None)
        return False

    def _asked(self, job: Job) -> Mapping[str, float]:
        from train.preflight import resources_asked

        spec = self._spec(job)
        return resources_asked(spec) if spec is not None else {}

    def _spec(self, job: Job) -> "JobSpec | None":
        from train.spec import SpecError, parse_spec

        if job.id not in self._specs:
            try:
                self._specs[job.id] = parse_spec(job.spec or {}, source=f"job {job.id}")
            except SpecError:
                # Acceptable: its driver refuses it with the same words; nobody else must wait.
                _log.exception("the specification of job %s is not one", job.id)
                self._specs[job.id] = None
        return self._specs[job.id]

    def _forget(self, ids: set[str]) -> None:
        """Drop what is kept of jobs that have ended."""
        self._specs = {k: v for k, v in self._specs.items() if k in ids}
        self._unfit_since = {k: v for k, v in self._unfit_since.items() if k in ids}


def _live(session: Session, job_id: str) -> bool:
    query = select(Attempt.number).where(Attempt.job_id == job_id, Attempt.ended_at.is_(None))
    return session.scalar(query.limit(1)) is not None


def _start(session: Session, job: Job, earlier: list[Attempt], now: float) -> str:
    """Write down that the job is launched, before anybody is asked to launch it."""
    number = len(earlier) + 1
    attempt = Attempt(
        job_id=job.id,
        number=number,
        submission_id=f"{job.id}-{number}",
        status="launching",
        steps_done_at_start=job.steps_done,
        created_at=int(now),
    )
    session.add(attempt)
    session.flush()
    return attempt.submission_id


def _tell(session: Session, job: Job, earlier: list[Attempt], what: str) -> None:
    """Say once per attempt that the job waits, and for what."""
    key = f"waiting:{len(earlier) + 1}:{what.split(':')[0]}"
    if event_with_key(session, job.id, key) is None:
        add_event(session, job, key=key, message=f"The job waits for {what}")
