"""A made-up cluster: Ray jobs, and drivers that write logs.

Drivers behave as `python -m train` does towards the manager: events and checkpoints, one process
per folder, a commit at a stop, exit codes. They take one step when told to.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

from serve_app.ray_jobs import RayJob, RayUnavailableError, Submission
from train.events import EventLog

GONE = -9


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
