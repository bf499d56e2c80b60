"""Thousands of made-up schedules: managers die anywhere, Ray forgets, clients change their mind.

A schedule is a seed. Every seed starts a job in a store that earlier ones have used, disturbs it at
random, then lets it run out; what must always hold is looked at after every move.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from serve.fake_cluster import FakeRay
from serve.manager_world import World
from serve_app.job_state import JobStatus, WrongStateError
from serve_app.store.database import Database
from serve_app.store.tables import Model, StoredFile

# Each takes about a fifth of a second; FERRATA_NUM_SCHEDULES=2000 for a thorough run.
NUM_SCHEDULES = int(os.environ.get("FERRATA_NUM_SCHEDULES", "150"))
FIRST_SEED = int(os.environ.get("FERRATA_FIRST_SCHEDULE", "0"))
MOVES, CALM_TICKS = 24, 120


class Crash(BaseException):
    """The manager's process was killed."""


class Fuse:
    """Kills the manager at the n-th boundary that it reaches, if at all."""

    def __init__(self) -> None:
        self.left: int | None = None

    def reach(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Crash


class FusedDatabase(Database):
    """A store whose user may die before a transaction, before its commit and after it."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        super().__init__(url)
        self._fuse = fuse

    @contextmanager
    def write(self) -> Iterator[Session]:
        self._fuse.reach()
        with super().write() as session:
            yield session
            self._fuse.reach()
        self._fuse.reach()


class FusedRay:
    """A cluster whose user may die before and after everything that changes it."""

    def __init__(self, ray: FakeRay, fuse: Fuse) -> None:
        self._ray, self._fuse = ray, fuse

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._fuse.reach()
            result = getattr(self._ray, name)(*args)
            self._fuse.reach()
            return result

        return call


class Schedule:
    """One job's made-up life, and what must hold all through it."""

    def __init__(self, world: World, seed: int, fuse: Fuse, database: FusedDatabase) -> None:
        self.world, self.random, self.fuse, self.database = (
            world,
            random.Random(seed),
            fuse,
            database,
        )
        self.world.manager = self.manager()
        world.steps = self.random.randint(1, 3)
        self.job_id = world.create()
        self.ended: str | None = None
        self.progress = 0
        self.told: list[tuple[int, str]] = []  # (seq, id) of every event seen
        self.num_submitted = len(world.ray.submitted)

    def manager(self) -> Any:
        return self.world.new_manager(self.database, FusedRay(self.world.ray, self.fuse))

    def run(self) -> None:
        moves: list[tuple[int, Callable[[], None]]] = [
            (8, self.run_ray),
            (8, self.look_after),
            (4, self.crash),
            (1, self.kill_driver),
            (1, self.lose_supervisor),
            (1, self.world.ray.restart),
            (1, self.world.ray.run_zombies),
            (1, self.toggle_ray),
            (2, self.ask),
        ]
        weights = [weight for weight, _ in moves]
        for _ in range(MOVES):
            ((_, move),) = self.random.choices(moves, weights)
            self.world.time += self.random.choice([0.5, 5.0, 60.0])
            move()
            self.check()
        self.calm()

    def calm(self) -> None:
        """Nothing disturbs any more, and a paused job is resumed: it must end."""
        self.world.ray.down = False
        for _ in range(CALM_TICKS):
            job = self.world.job(self.job_id)
            if JobStatus(job.status).terminal:
                break
            if job.status == "paused":
                self.world.ask(self.job_id, "resume")
            self.world.ray.run_zombies()
            self.world.tick(30.0)
            self.check()
        assert self.ended, f"the job is still {self.world.job(self.job_id).status}"
        for _ in range(3):
            self.world.ray.run_zombies()
            self.world.tick(31.0)
        self.check()
        self.check_end()

    # Moves.
    def look_after(self) -> None:
        with suppress(Crash):
            self.world.manager.step()

    def crash(self) -> None:
        self.fuse.left = self.random.randrange(14)
        try:
            self.world.manager.step()
        except Crash:
            self.world.manager = self.manager()
        self.fuse.left = None

    def run_ray(self) -> None:
        for name in self.world.ray.live():
            self.world.ray.run(name)

    def kill_driver(self) -> None:
        for name in self.world.ray.live():
            self.world.ray.end_driver(name, self.random.choice([-9, 1, 143, None]))

    def lose_supervisor(self) -> None:
        for name in self.world.ray.live():
            self.world.ray.lose_supervisor(name)

    def toggle_ray(self) -> None:
        self.world.ray.down = not self.world.ray.down

    def ask(self) -> None:
        with suppress(WrongStateError):
            self.world.ask(self.job_id, self.random.choice(["pause", "pause", "resume", "cancel"]))

    # What must always hold.
    def check(self) -> None:
        world, job = self.world, self.world.job(self.job_id)
        if self.ended:
            assert job.status == self.ended, "terminal is terminal"
        elif JobStatus(job.status).terminal:
            self.ended = job.status
        attempts = world.attempts(self.job_id)
        assert sum(attempt.ended_at is None for attempt in attempts) <= 1
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert job.steps_done >= self.progress, "progress never falls"
        self.progress = job.steps_done
        told = [(event.seq, event.id) for event in world.events(self.job_id)]
        assert told[: len(self.told)] == self.told, "events that were told stay as they are"
        assert [seq for seq, _ in told] == list(range(1, len(told) + 1)), "no gap"
        self.told = told
        folders = [driver.out for driver in world.ray.drivers]
        assert len(set(folders)) == len(folders), "one driver in a folder"

    def check_end(self) -> None:
        world, job = self.world, self.world.job(self.job_id)
        assert all(attempt.ended_at is not None for attempt in world.attempts(self.job_id))
        assert world.ray.live() == [], "nothing runs for a job that has ended"
        launched = world.ray.submitted[self.num_submitted :]
        assert set(launched) <= {a.submission_id for a in world.attempts(self.job_id)}
        with world.database.read() as session:
            files = session.query(StoredFile).filter_by(filename=f"{self.job_id}-step-metrics.csv")
            models = session.query(Model).filter_by(job_id=self.job_id, kind="fine_tuned").count()
            num_files = files.count()
        succeeded = job.status == "succeeded"
        assert (num_files, models, len(job.result_files)) == (succeeded,) * 3
        if succeeded:
            steps = [e.data["step"] for e in world.events(self.job_id) if e.type == "metrics"]
            assert steps == list(range(1, world.steps + 1)), "each step once, in order"
            assert job.steps_done == job.steps_planned
            assert job.trained_tokens == sum(100 + step for step in steps)


def test_whatever_happens_every_job_ends_and_nothing_is_lost_or_doubled(
    backend, store_url, tmp_path
):
    fuse = Fuse()
    database = FusedDatabase(store_url, fuse)
    plain = Database(store_url)
    for each in (database, plain):
        if each.is_sqlite:  # durability is not what is tested here, and costs the most
            event.listen(each.engine, "connect", _without_flushing)
    world = World(plain, tmp_path / "data")
    ends = []
    number = NUM_SCHEDULES if backend == "sqlite" else NUM_SCHEDULES // 3
    for seed in range(FIRST_SEED, FIRST_SEED + number):
        schedule = Schedule(world, seed, fuse, database)
        try:
            schedule.run()
        except BaseException as error:
            error.add_note(f"schedule {seed} on {backend}, job {schedule.job_id}")
            raise
        ends.append(schedule.ended)
        world.forget(schedule.job_id)
        world.ray.restart()
    assert {"succeeded", "cancelled"} <= set(ends), "the schedules reach both ends"
    database.close()
    plain.close()


def _without_flushing(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")
