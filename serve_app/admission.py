"""Who may start: first come, first served, as far as the cluster has room.

A job that does not fit keeps its place, and later ones wait behind it: otherwise small jobs could
keep a large one waiting for ever. A project at its own limit, or a job that waits out a retry's
delay, holds nobody else up.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve_app.job_state import JobStatus
from serve_app.retry import RetryPolicy
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.events import add_event, event_with_key
from serve_app.store.jobs import attempts, get_job, live_job_ids, set_status
from serve_app.store.tables import Attempt, Job

if TYPE_CHECKING:
    from train.spec import JobSpec

# A cluster that was started again gets its nodes back one by one.
UNFIT_PATIENCE_S = 120.0
ADMISSIBLE = (JobStatus.QUEUED.value, JobStatus.RUNNING.value)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Move:
    """What happens to one job of the queue."""

    job_id: str
    action: Literal["start", "wait", "fail"]
    text: str = ""  # what it waits for, or why it fails


class Admission:
    """Decides over the whole queue at once, and enters what it decided in one transaction."""

    def __init__(self, settings: Settings, policy: RetryPolicy) -> None:
        self._settings, self._policy = settings, policy
        self._specs: dict[str, JobSpec | None] = {}  # of queued and running jobs; never changes
        self._unfit_since: dict[str, float] = {}  # job id -> when it first asked for too much
        self._told: set[tuple[str, str]] = set()  # (job id, what its client knows it waits for)

    def admit(self, database: Database, cluster: Mapping[str, float], now: float) -> None:
        """Write an attempt for every job that may start. Most often there is nothing to write."""
        with database.read() as session:
            if not self._moves(session, cluster, now, lock=False):
                return
        with database.write() as session:
            # Decided again under the rows' locks, so that two managers do not fill the same room.
            for move in self._moves(session, cluster, now, lock=True):
                self._enter(session, move, now)

    def _moves(
        self, session: Session, cluster: Mapping[str, float], now: float, *, lock: bool
    ) -> list[Move]:
        """What is new in the queue."""
        query = select(Job).where(Job.status.in_(ADMISSIBLE), Job.steps_planned > 0)
        query = query.order_by(Job.seq)
        jobs = list(session.scalars(query.with_for_update() if lock else query))
        live = live_job_ids(session)
        self._forget({job.id for job in jobs})
        free, per_project = Counter(cluster), Counter[str | None]()
        for job in jobs:
            if job.id in live:
                free.subtract(self._asked(job))
                per_project[job.project_id] += 1
        moves: list[Move] = []
        for job in jobs:
            if job.id in live or job.status != JobStatus.QUEUED.value:
                continue
            limit = self._settings.max_running_jobs_per_project
            if per_project[job.project_id] >= limit:
                moves.append(Move(job.id, "wait", f"the project's limit of {limit} running jobs"))
                continue
            earlier = attempts(session, job.id)
            if self._policy.due_at(earlier, job.steps_done) > now:
                continue
            if (unfit := self._unfit(job, earlier, cluster, now)) is not None:
                moves.append(unfit)
                continue
            if (reason := self._no_room(job, per_project.total(), free)) is not None:
                moves.append(Move(job.id, "wait", reason))
                break
            moves.append(Move(job.id, "start"))
            per_project[job.project_id] += 1
            free.subtract(self._asked(job))
        return [m for m in moves if m.action != "wait" or (m.job_id, _kind(m)) not in self._told]

    def _enter(self, session: Session, move: Move, now: float) -> None:
        job = get_job(session, move.job_id)
        assert job is not None  # its row is locked
        if move.action == "start":
            _start(session, job, now)
        elif move.action == "fail":
            told = {"code": "insufficient_resources", "message": move.text, "param": None}
            set_status(session, job, JobStatus.FAILED, message=move.text, error=told)
        else:
            key = f"waiting:{len(attempts(session, job.id)) + 1}:{_kind(move)}"
            if event_with_key(session, job.id, key) is None:
                add_event(session, job, key=key, message=f"The job waits for {move.text}")
            self._told.add((job.id, _kind(move)))

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

    def _unfit(
        self, job: Job, earlier: list[Attempt], cluster: Mapping[str, float], now: float
    ) -> Move | None:
        """What happens to a job for which the whole cluster is too small; None when it is not.

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
            if not earlier and now - since >= UNFIT_PATIENCE_S:
                return Move(job.id, "fail", str(error))
            return Move(job.id, "wait", f"a larger cluster: {error}")
        self._unfit_since.pop(job.id, None)
        return None

    def _asked(self, job: Job) -> Mapping[str, float]:
        from train.preflight import resources_asked

        spec = self._spec(job)
        return resources_asked(spec) if spec is not None else {}

    def _spec(self, job: Job) -> "JobSpec | None":
        from train.spec import SpecError
        from train.spec_file import parse_spec

        if job.id not in self._specs:
            try:
                self._specs[job.id] = parse_spec(job.spec or {}, source=f"job {job.id}")
            except SpecError:
                # Acceptable: its driver refuses it with the same words; nobody else must wait.
                _log.exception("the specification of job %s is not one", job.id)
                self._specs[job.id] = None
        return self._specs[job.id]

    def _forget(self, ids: set[str]) -> None:
        """Drop what is kept of jobs that have left the queue."""
        self._specs = {k: v for k, v in self._specs.items() if k in ids}
        self._unfit_since = {k: v for k, v in self._unfit_since.items() if k in ids}
        self._told = {told for told in self._told if told[0] in ids}


def _kind(move: Move) -> str:
    """What a job waits for, without figures: told once."""
    return move.text.split(":")[0]


def _start(session: Session, job: Job, now: float) -> None:
    """Write down that the job is launched, before anybody is asked to launch it."""
    number = len(attempts(session, job.id)) + 1
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
