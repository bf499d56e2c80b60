"""Has new jobs checked, and enters what came of it. The checking itself is `prepare`'s."""

import logging
from collections.abc import Callable, Collection
from concurrent.futures import Future

from sqlalchemy.orm import Session

from serve_app.fair_threads import FairThreads
from serve_app.job_state import JobStatus
from serve_app.preparation import Preparation
from serve_app.store.database import Database
from serve_app.store.events import add_event
from serve_app.store.jobs import get_job, set_status
from serve_app.store.tables import Job

Prepare = Callable[[str], Preparation]  # from a job's id; raises what is not the user's to mend
MAX_BAD_LINES = 20  # told as events
RETRY_DELAY_S = 5.0  # doubles
_log = logging.getLogger(__name__)


class Validation:
    """Jobs that are being prepared, each in a thread, so that nobody else waits."""

    def __init__(
        self,
        database: Database,
        prepare: Prepare,
        max_tries: int,
        now: Callable[[], float],
        threads: int,
    ) -> None:
        self._database, self._prepare, self._now = database, prepare, now
        self._max_tries = max_tries
        self._threads = FairThreads(threads, "prepare") if threads else None
        self._running: dict[str, Future[Preparation]] = {}
        self._failed: dict[str, tuple[int, float]] = {}  # job id -> (tries, when to try again)

    def advance(self, job: Job) -> None:
        """Begin to prepare the job, or enter the result when there is one. Never waits."""
        if job.id not in self._running:
            if self._now() < self._failed.get(job.id, (0, 0.0))[1]:
                return
            self._running[job.id] = self._begin(job)
        if not self._running[job.id].done():
            return
        future = self._running.pop(job.id)
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        with self._database.write() as session:
            locked = get_job(session, job.id, lock=True)
            if locked is None or not awaits_preparation(locked):
                return  # stopped in the meantime
            if error is not None:
                self._enter_trouble(session, locked, error)
            else:
                enter(session, locked, future.result())

    def forget_all_but(self, ids: Collection[str]) -> None:
        """Drop what is kept of jobs that have ended."""
        for job_id in self._running.keys() - set(ids):
            self._running.pop(job_id).cancel()  # nothing, once it has begun
        self._failed = {k: v for k, v in self._failed.items() if k in ids}

    def _begin(self, job: Job) -> Future[Preparation]:
        if self._threads is not None:
            return self._threads.submit(job.project_id, lambda: self._prepare(job.id))
        done: Future[Preparation] = Future()
        try:
            done.set_result(self._prepare(job.id))
        except Exception as error:
            done.set_exception(error)
        return done

    def _enter_trouble(self, session: Session, job: Job, error: Exception) -> None:
        """Not the job's fault: a worker died, the storage did not answer. Tried again, said so."""
        tries = self._failed.get(job.id, (0, 0.0))[0] + 1
        # The error's own words hold paths of the service and belong into its log.
        _log.warning("the files of %s could not be checked", job.id, exc_info=error)
        message = (
            f"The job's files could not be checked ({type(error).__name__}); the service's log "
            "has the reason"
        )
        if tries >= self._max_tries:
            told = {"code": "server_error", "message": message, "param": None}
            set_status(session, job, JobStatus.FAILED, message=message, error=told)
            return
        delay_s = RETRY_DELAY_S * 2.0 ** (tries - 1)
        self._failed[job.id] = (tries, self._now() + delay_s)
        message += f"; try {tries + 1} of {self._max_tries} follows in {delay_s:g} s"
        add_event(session, job, key="not-checked", message=message, level="warn")


def awaits_preparation(job: Job) -> bool:
    """True for a new job, and for one that was paused before it was checked, and resumed."""
    begins = job.status in (JobStatus.VALIDATING.value, JobStatus.QUEUED.value)
    return begins and not job.steps_planned


def enter(session: Session, job: Job, preparation: Preparation) -> None:
    """Enter a preparation into a locked job that is being validated."""
    if preparation.error is not None:
        for line in preparation.bad_lines[:MAX_BAD_LINES]:
            data = {**line, "param": preparation.error.get("param")}
            add_event(session, job, message=line["message"], level="error", data=data)
        error = preparation.error
        set_status(session, job, JobStatus.FAILED, message=error["message"], error=error)
        return
    job.model = preparation.model or job.model
    job.spec, job.steps_planned = preparation.spec, preparation.steps_planned
    job.request = job.request | {"resolved": preparation.resolved}
    for note in preparation.notes:
        add_event(session, job, message=note)
    message = "Validated training file, and the job is queued"
    set_status(session, job, JobStatus.QUEUED, message=message)
