"""A made-up cluster for the job manager's tests: its own clock, Ray jobs, drivers that write logs.

Drivers behave as `python -m train` does towards the manager: events and checkpoints, one process
per folder, a commit at a stop, exit codes. They take one step when told to.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

from sqlalchemy import select

from serve_app.files import FileStorage
from serve_app.job_manager import JobManager
from serve_app.job_state import JobStatus
from serve_app.launch import SECRETS_FILE
from serve_app.preparation import Preparation
from serve_app.ray_jobs import RayJob, RayUnavailableError, Submission
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.jobs import attempts, create_job, get_job, new_job, request_stop, set_status
from serve_app.store.tables import Attempt, Event, Job, Project
from train.events import EventLog

PROJECT = "proj_test"
GONE = -9


def spec(steps: int = 4, **more: Any) -> dict[str, Any]:
    """A job's specification with one stage, half a CPU and rows held out."""
    return {
        "model": "/nowhere",
        "seed": 1,
        "data": {"train": "/t.jsonl", "valid": "/v.jsonl", "heldout": "/h.jsonl"},
        "grader": {"type": "answer"},
        "rlvr": {"max_steps": steps},
        "learner": {"cpus_per_worker": 0.25},
        "rollout": {"cpus_per_engine": 0.25, "num_verifiers": 1, "cpus_per_verifier": 0.01},
        **more,
    }


@dataclass
class Driver:
    """One process that runs a job in `out`."""

    out: Path
    steps: int
    log: EventLog = field(init=False)
    step: int = 0
    exit_code: int | None = None
    stopping: bool = False

    def start(self) -> None:
        """Continue where the last commit is."""
        self.step = self._committed()
        self.log = EventLog(self.out / "events.jsonl")
        self.log.rewind("rlvr", self.step)
        self.emit(type="message", message=f"stage rlvr continues at step {self.step}")

    def emit(self, **event: Any) -> None:
        self.log.emit({"uid": uuid.uuid4().hex, **event})

    def advance(self) -> None:
        """Take a step, or evaluate and end."""
        if self.stopping:
            self._commit()
            self.exit_code = 143
        elif (self.out / "report.json").exists():
            self.exit_code = 0
        elif self.step < self.steps:
            self.step += 1
            self._tell_step()
            if self.step % 2 == 0 or self.step == self.steps:
                self._commit()
        else:
            self._finish()

    def _tell_step(self) -> None:
        self.emit(
            type="metrics",
            stage="rlvr",
            step=self.step,
            message=f"Step {self.step}/{self.steps}",
            total_steps=self.steps,
            train_mean_reward=self.step / 10,
            reward=self.step / 10,
            full_valid_mean_reward=None,
            trained_tokens=100 + len(uuid.uuid4().hex[:1]) * self.step,
            timing={"step": {"sampling": 1.0, "training": 1.0, "full_iteration": 2.0}},
        )

    def _committed(self) -> int:
        steps = [int(p.name.removeprefix("step-")) for p in self._folder().glob("step-*")]
        return max(steps, default=0)

    def _folder(self) -> Path:
        return self.out / "rlvr" / "checkpoints"

    def _commit(self) -> None:
        if self.step == self._committed():
            return
        for old in self._folder().glob("step-*"):
            old.rmdir()
        (self._folder() / f"step-{self.step:06d}").mkdir(parents=True)
        self.emit(
            type="checkpoint",
            stage="rlvr",
            step=self.step,
            message="committed",
            path=f"rlvr/checkpoints/step-{self.step:06d}",
            metrics={"train_mean_reward": self.step / 10},
            kept=[self.step],
        )

    def _finish(self) -> None:
        rows = []
        for name in ("base", "rlvr"):
            row = {"name": name, "greedy": 0.5, "ci95": [0.4, 0.6], "num_problems": 8}
            self.emit(type="evaluation", stage="evaluate", **row)
            rows.append(row)
        (self.out / "export").mkdir(exist_ok=True)
        (self.out / "report.json").write_text(json.dumps({"rows": rows, "best": {"step": 1}}))
        self.exit_code = 0


@dataclass
class _Record:
    submission: Submission
    driver: Driver | None  # None: not started yet
    status: str = "pending"
    exit_code: int | None = None
    message: str = ""


class FakeRay:
    """RayJobs, and what befalls a cluster. Its drivers are processes and can outlive its memory."""

    def __init__(self) -> None:
        self.records: dict[str, _Record] = {}
        self.drivers: list[Driver] = []  # every process that runs
        self.submitted: list[str] = []  # every submission that was taken, in order
        self.stops: list[str] = []
        self.kills: list[str] = []
        self.down = False
        self.broken: set[str] = set()  # submissions of which it cannot tell anything
        self._lock = RLock()

    # What the manager calls.
    def submit(self, submission: Submission) -> None:
        with self._answering():
            if submission.submission_id not in self.records:
                self.records[submission.submission_id] = _Record(submission, None)
                self.submitted.append(submission.submission_id)

    def status(self, submission_id: str) -> RayJob:
        with self._answering():
            if submission_id in self.broken:
                raise RuntimeError(f"the record of {submission_id} is damaged")
            record = self.records.get(submission_id)
            if record is None:
                return RayJob(submission_id, "unknown")
            return self._told(submission_id, record)

    def stop(self, submission_id: str) -> None:
        with self._answering():
            self.stops.append(submission_id)
            record = self.records.get(submission_id)
            if record is None or record.status not in ("pending", "running"):
                return
            if record.driver is None:
                record.status = "stopped"
            else:
                record.driver.stopping = True

    def kill(self, submission_id: str) -> None:
        with self._answering():
            self.kills.append(submission_id)
            self.end_driver(submission_id, GONE)

    def submissions(self) -> list[RayJob]:
        with self._answering():
            return [self._told(name, record) for name, record in self.records.items()]

    # What befalls.
    def run(self, submission_id: str) -> None:
        """Let the job take one step: start its driver, or have the driver take a step."""
        with self._lock:
            record = self.records[submission_id]
            if record.status == "pending":
                self._start(record)
            elif record.status == "running":
                assert record.driver is not None
                self._advance(record.driver)
                self._settle(record)

    def run_zombies(self) -> None:
        """Let processes that no Ray job stands for take one step."""
        with self._lock:
            known = [
                record.driver for record in self.records.values() if record.status == "running"
            ]
            for driver in [d for d in self.drivers if all(d is not k for k in known)]:
                self._advance(driver)

    def end_driver(self, submission_id: str, exit_code: int | None, message: str = "") -> None:
        """The driver ends with this code; None: its node went, and nobody saw how."""
        with self._lock:
            record = self.records[submission_id]
            if record.status in ("pending", "running"):
                record.status, record.exit_code, record.message = "failed", exit_code, message
                self._remove(record.driver)

    def lose_supervisor(self, submission_id: str) -> None:
        """Ray believes the job dead, while its driver lives on."""
        with self._lock:
            record = self.records[submission_id]
            if record.status == "running":
                record.status, record.message = "failed", "the supervisor died"

    def restart(self) -> None:
        """The whole cluster is started again: processes and memory are gone."""
        with self._lock:
            self.records.clear()
            self.drivers.clear()

    def live(self) -> list[str]:
        """Submissions that have not ended."""
        with self._lock:
            return [n for n, r in self.records.items() if r.status in ("pending", "running")]

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with self._lock:
            if self.down:
                raise RayUnavailableError("the fake cluster is down")
            yield

    def _start(self, record: _Record) -> None:
        words = record.submission.entrypoint.split()
        out = Path(words[words.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        if any(driver.out == out for driver in self.drivers):
            record.status, record.exit_code = "failed", 75
            record.message = f"error: {out}: another process is running a job in this folder"
            return
        steps = json.loads(Path(words[words.index("--spec") + 1]).read_text())["rlvr"]["max_steps"]
        record.driver, record.status = Driver(out, steps), "running"
        record.driver.start()
        self.drivers.append(record.driver)

    def _advance(self, driver: Driver) -> None:
        driver.advance()
        if driver.exit_code is not None:
            self._remove(driver)

    def _settle(self, record: _Record) -> None:
        assert record.driver is not None
        code = record.driver.exit_code
        if code is None:
            return
        if record.driver.stopping:
            record.status = "stopped"
        else:
            record.status, record.exit_code = "succeeded" if code == 0 else "failed", code

    def _remove(self, driver: Driver | None) -> None:
        self.drivers = [d for d in self.drivers if d is not driver]

    def _told(self, name: str, record: _Record) -> RayJob:
        return RayJob(
            name,
            record.status,  # pyright: ignore[reportArgumentType]
            record.exit_code,
            record.message,
            record.submission.metadata,
        )


class World:
    """A store, a cluster, a clock, and the managers that look after them."""

    def __init__(self, database: Database, folder: Path, **settings: Any) -> None:
        self.database, self.ray = database, FakeRay()
        store = database.url.render_as_string(hide_password=False)
        self.settings = Settings(data=folder, store=store, **settings)
        self.cluster: dict[str, float] = {"CPU": 8.0}
        self.time = 1_000_000.0
        self.steps = 4
        self.prepared: dict[str, Preparation | Exception] = {}  # what `prepare` answers, by job
        self.num_prepared = 0
        self.secrets: dict[str, str] = {}
        with database.write() as session:
            if session.get(Project, PROJECT) is None:
                session.add(Project(id=PROJECT, name="default", created_at=1))
        self.manager = self.new_manager()

    def new_manager(self, database: Database | None = None, ray: Any = None) -> JobManager:
        """A manager that knows nothing but the store."""
        database = database or self.database
        return JobManager(
            self.settings,
            database,
            ray or self.ray,
            self._prepare,
            lambda: self.cluster,
            files=FileStorage(self.settings, database),
            secrets_of=lambda project_id: dict(self.secrets),
            now=lambda: self.time,
            threads=0,
        )

    def _prepare(self, job_id: str) -> Preparation:
        self.num_prepared += 1
        answer = self.prepared.get(job_id)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        return Preparation(spec(self.steps), {"seed": 1}, ["batch size: 4"], self.steps + 2)

    # What clients do, as the routes do it.
    def create(self, **request: Any) -> str:
        job = new_job(
            project_id=PROJECT,
            request={"model": "ferrata-tiny", "training_file": "file-1", **request},
            out="",
            model="ferrata-tiny",
            seed=1,
            training_file="file-1",
        )
        job.out = str(self.settings.job_folder(job.id) / "out")
        with self.database.write() as session:
            create_job(session, job)
        return job.id

    def ask(self, job_id: str, what: str) -> None:
        """Pause, cancel or resume. Raises WrongStateError."""
        with self.database.write() as session:
            job = get_job(session, job_id, lock=True)
            assert job is not None
            if what == "resume":
                set_status(session, job, JobStatus.QUEUED, message="Resumed")
            else:
                request_stop(session, job, what)

    # What time does.
    def tick(self, seconds: float = 1.0) -> None:
        """Time passes, every Ray job takes a step, the manager makes a pass."""
        self.time += seconds
        for submission_id in self.ray.live():
            self.ray.run(submission_id)
        self.manager.step()

    def until(self, job_id: str, *statuses: str, seconds: float = 1.0, most: int = 200) -> Job:
        """Tick until the job has one of the statuses."""
        for _ in range(most):
            if (job := self.job(job_id)).status in statuses:
                return job
            self.tick(seconds)
        raise AssertionError(f"{job_id} is {job.status} after {most} ticks, not {statuses}")

    # What stands in the store.
    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            job = get_job(session, job_id)
            assert job is not None
            return job

    def attempts(self, job_id: str) -> list[Attempt]:
        with self.database.read() as session:
            return attempts(session, job_id)

    def events(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            query = select(Event).where(Event.job_id == job_id).order_by(Event.seq)
            return list(session.scalars(query))

    def messages(self, job_id: str) -> list[str]:
        return [event.message for event in self.events(job_id)]

    def secrets_file(self, job_id: str) -> Path:
        return self.settings.job_folder(job_id) / SECRETS_FILE

    def forget(self, job_id: str) -> None:
        """Remove a job's folder, to keep the scratch folder small."""
        shutil.rmtree(self.settings.job_folder(job_id), ignore_errors=True)
