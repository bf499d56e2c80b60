"""What the job manager's tests share: a store, a made-up cluster, a clock of its own."""

import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import select

from serve.fake_cluster import FakeRay
from serve_app.files import FileStorage
from serve_app.job_manager import JobManager
from serve_app.job_state import JobStatus
from serve_app.launch import SECRETS_FILE
from serve_app.preparation import Preparation
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.jobs import attempts, create_job, get_job, new_job, request_stop, set_status
from serve_app.store.tables import Attempt, Event, Job, Project

PROJECT = "proj_test"


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
