"""The loop that leads every job to its end: validate, admit, launch, follow, retry, stop.

`step()` is one pass. It may be repeated, broken off anywhere, or run by two managers at once: every
fact is one short transaction that first looks whether it still holds, and Ray is told only what the
store holds already. A plain class; `serve_app.manager` runs it in an actor.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy.orm import Session

from serve_app import external
from serve_app.admission import Admission
from serve_app.attempts import AttemptEnd, close, end_of, live_attempt, locked
from serve_app.ingest import has_news, take_events
from serve_app.job_state import JobStatus
from serve_app.launch import forget_secrets, submission
from serve_app.ray_jobs import RayJob, RayJobs
from serve_app.results import (
    PURPOSE,
    ResultStorage,
    enter_success,
    metrics_csv,
    read_report,
    results_name,
)
from serve_app.retry import RetryPolicy
from serve_app.secrets import SecretKeyError
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.events import add_event
from serve_app.store.jobs import get_job, jobs_at_work, metrics_events, set_status
from serve_app.store.tables import Attempt, Job, StoredFile
from serve_app.validation import Prepare, Validation
from train.registration import JOB_ID_KEY

ADMISSION, STRAYS = "admission", "stray Ray jobs"  # in `errors`, beside the ids of jobs
STRAY_INTERVAL_S = 30.0
KILL_MARGIN_S = 30.0  # Ray itself kills after the grace; then we do
_log = logging.getLogger(__name__)


class _EnteredElsewhereError(Exception):
    """Another manager has entered the end of this attempt."""


class JobManager:
    """Leads jobs. What it remembers itself only spares work; all truth is in the store."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        ray_jobs: RayJobs,
        prepare: Prepare,
        cluster: Callable[[], Mapping[str, float]],
        *,
        files: ResultStorage,
        secrets_of: Callable[[str], Mapping[str, str]],
        policy: RetryPolicy | None = None,
        now: Callable[[], float] = time.time,
        threads: int = 4,
    ) -> None:
        """`prepare` checks one job by its id; `cluster` returns the cluster's total resources.

        `secrets_of` returns a project's secrets. `threads` 0: jobs are prepared within the pass.
        """
        self._settings, self._database, self._ray_jobs = settings, database, ray_jobs
        self._cluster, self._files, self._secrets_of, self._now = cluster, files, secrets_of, now
        self._policy = policy or RetryPolicy(settings.max_attempts)
        self._admission = Admission(settings, self._policy)
        self._validation = Validation(database, prepare, settings.max_attempts, now, threads)
        self._stop_asked: dict[str, float] = {}  # submission id -> when Ray was asked to stop it
        self._strays_looked_for: float | None = None
        self.errors: dict[str, str] = {}  # of the last pass, by what it was about

    def step(self) -> None:
        """One pass over everything. Raises only when the store itself does not answer."""
        errors: dict[str, str] = {}
        with self._tolerating(errors, ADMISSION):
            self._admission.admit(self._database, self._cluster(), self._now())
        with self._database.read() as session:
            work = jobs_at_work(session)
        for job, attempt in work:
            with self._tolerating(errors, job.id):
                if attempt is not None:
                    self._follow(job, attempt)
                else:
                    self._validation.advance(job)
        with self._tolerating(errors, STRAYS):
            self._stop_strays()
        self._validation.forget_all_but({job.id for job, _ in work})
        self.errors = errors

    def register_external(
        self, submission_id: str, out: str, spec: dict[str, Any], steps_planned: int
    ) -> None:
        """Enter a job that somebody sent by `ray job submit`; its driver calls this."""
        external.register(self._database, self._settings, submission_id, out, spec, steps_planned)

    @contextmanager
    def _tolerating(self, errors: dict[str, str], what: str) -> Iterator[None]:
        """One job's trouble is not the others': it is logged, shown in health, and tried again."""
        try:
            yield
        except Exception as error:
            if self.errors.get(what) != str(error):  # the same trouble each second is told once
                _log.exception("%s: the pass failed and is tried again", what)
            errors[what] = str(error)

    def _follow(self, job: Job, attempt: Attempt) -> None:
        """Bring the store to what Ray says of a live attempt, and Ray to what the store wants."""
        ray_job = self._ray_jobs.status(attempt.submission_id)
        # In this order: once Ray says that a driver ended, its log is whole.
        self._take_events(job.id)
        if ray_job.status == "unknown" and attempt.status == "launching":
            self._launch(job, attempt)
        elif ray_job.status in ("pending", "running"):
            self._enter_running(job.id, attempt.submission_id)
            if job.requested is not None:
                self._stop(attempt.submission_id)
        elif ray_job.status == "succeeded":
            self._succeed(job.id, attempt.submission_id)
        else:
            self._end(job, attempt.submission_id, end_of(ray_job))

    def _launch(self, job: Job, attempt: Attempt) -> None:
        """Ask Ray to run an attempt that it does not know."""
        if job.requested is not None:
            end = AttemptEnd("stopped", "it was stopped before it was launched")
            self._end(job, attempt.submission_id, end)
            return
        try:
            secret_values = self._secrets_of(job.project_id) if job.project_id else {}
            self._ray_jobs.submit(
                submission(self._settings, job, attempt.submission_id, secret_values)
            )
        except Exception:  # that it failed is told to the client, how it did to the operator
            message = "The job could not be launched yet, and is tried again"
            key = f"not-launched:{attempt.number}"
            with self._database.write() as session:
                if (found := locked(session, attempt.submission_id)) is not None:
                    add_event(session, found[0], key=key, message=message, level="warn")
            raise
        self._enter_running(job.id, attempt.submission_id)

    def _enter_running(self, job_id: str, submission_id: str) -> None:
        with self._database.write() as session:
            found = locked(session, submission_id)
            if found is not None:
                job, attempt = found
                if attempt.status == "launching":
                    attempt.status = "running"
                    message = f"Attempt {attempt.number} runs as Ray job {submission_id}"
                    set_status(session, job, JobStatus.RUNNING, message=message)
                return
        # The attempt was ended while this manager launched it.
        forget_secrets(self._settings, job_id)
        self._ray_jobs.stop(submission_id)

    def _take_events(self, job_id: str) -> None:
        with self._database.read() as session:
            job = get_job(session, job_id)
        if job is None or not has_news(job):
            return
        num_taken = 1
        while num_taken:
            with self._database.write() as session:
                job = get_job(session, job_id, lock=True)
                if job is None or JobStatus(job.status).terminal:
                    return
                num_taken = take_events(session, job, self._settings.organization)

    def _stop(self, submission_id: str) -> None:
        """Ask Ray once; when its own grace has run out and more, end the driver."""
        asked_at = self._stop_asked.get(submission_id)
        if asked_at is None:
            self._ray_jobs.stop(submission_id)
            self._stop_asked[submission_id] = self._now()
        elif self._now() - asked_at > self._settings.stop_grace_s + KILL_MARGIN_S:
            _log.warning("%s ignored its stop; it is killed", submission_id)
            self._ray_jobs.kill(submission_id)
            self._stop_asked[submission_id] = self._now()

    def _succeed(self, job_id: str, submission_id: str) -> None:
        """Enter the job's results; its result file, its model and its status in one transaction."""
        with self._database.read() as session:
            job = get_job(session, job_id)
            events = metrics_events(session, job_id)
        if job is None:
            return
        report = read_report(job)
        if report is None:
            reason = "its driver succeeded, but left no report"
            self._end(job, submission_id, AttemptEnd("failed", reason))
            return
        forget_secrets(self._settings, job_id)

        def enter(session: Session, file: StoredFile | None) -> None:
            found = locked(session, submission_id)
            if found is None:
                raise _EnteredElsewhereError
            job, attempt = found
            attempt.status, attempt.ended_at = "succeeded", int(self._now())
            enter_success(session, job, report, file, self._settings.organization)

        with suppress(_EnteredElsewhereError):
            if job.project_id is None:  # result files belong to projects
                with self._database.write() as session:
                    enter(session, None)
            else:
                chunks = metrics_csv(event.data for event in events)
                self._files.save(job.project_id, results_name(job), PURPOSE, chunks, also=enter)

    def _end(self, job: Job, submission_id: str, end: AttemptEnd) -> None:
        """Enter the end of an attempt that did not succeed."""
        reason = self._without_secrets(job, end.reason)
        forget_secrets(self._settings, job.id)
        self._stop_asked.pop(submission_id, None)
        with self._database.write() as session:
            if (found := locked(session, submission_id)) is not None:
                hidden = AttemptEnd(end.status, reason)
                close(session, *found, hidden, self._policy, self._now())

    def _without_secrets(self, job: Job, text: str) -> str:
        """A driver's words with its secrets hidden: a library may print what it was given."""
        try:
            values = self._secrets_of(job.project_id).values() if job.project_id else ()
        except SecretKeyError:
            # Acceptable: the attempt must end all the same, and launching it again says why not.
            _log.exception("the secrets of %s cannot be hidden in how it ended", job.id)
            return "why is not told: the project's secrets cannot be read"
        for value in values:
            text = text.replace(value, "***")
        return text

    def _stop_strays(self) -> None:
        """Stop Ray jobs of ours whose attempt has ended: launched in the moment of its end."""
        looked, now = self._strays_looked_for, self._now()
        if looked is not None and now - looked < STRAY_INTERVAL_S:
            return
        # Ray first: an attempt's row is older than its Ray job.
        ours = [
            r
            for r in self._ray_jobs.submissions()
            if not r.ended and JOB_ID_KEY in (r.metadata or {})
        ]
        for ray_job in ours:
            if self._is_stray(ray_job):
                self._stop(ray_job.submission_id)
        self._strays_looked_for = now

    def _is_stray(self, ray_job: RayJob) -> bool:
        job_id = (ray_job.metadata or {})[JOB_ID_KEY]
        with self._database.read() as session:
            if get_job(session, job_id) is None:
                return False  # of another service's store
            attempt = live_attempt(session, job_id)
        return attempt is None or attempt.submission_id != ray_job.submission_id
