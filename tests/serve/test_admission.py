"""Who starts when: in order of arrival, as far as room and limits go."""

from typing import Any

import pytest

from serve.manager_world import World, spec
from serve_app.admission import UNFIT_PATIENCE_S
from serve_app.preparation import Preparation
from serve_app.store.tables import Job, Project


@pytest.fixture
def make_world(database, tmp_path):
    """A function that makes a world with these settings."""
    return lambda **settings: World(database, tmp_path / "data", **settings)


def create(world: World, cpus: float = 0.5, **request: Any) -> str:
    """A job that asks for about so many CPUs."""
    job_id = world.create(**request)
    asked = spec(50)
    asked["learner"]["cpus_per_worker"] = cpus - 0.26
    world.prepared[job_id] = Preparation(asked, {}, [], 52)
    return job_id


def statuses(world: World, ids: list[str]) -> list[str]:
    return [world.job(job_id).status for job_id in ids]


def test_jobs_start_in_order_of_arrival_while_there_is_room(make_world):
    world = make_world(max_running_jobs_per_project=9)
    world.cluster = {"CPU": 2.0}
    ids = [create(world, cpus) for cpus in (1.0, 0.5, 1.0, 0.25)]
    for _ in range(3):
        world.tick()
    assert statuses(world, ids) == ["running", "running", "queued", "queued"], (
        "the small fourth one does not overtake the third"
    )
    waiting = [m for m in world.messages(ids[2]) if "waits for" in m]
    assert waiting == [
        "The job waits for room on the cluster: it asks for 1 CPUs of which 0.5 are free"
    ]
    world.ask(ids[0], "cancel")
    world.until(ids[0], "cancelled")
    world.tick()
    assert statuses(world, ids[2:]) == ["running", "running"]


def test_the_clusters_limit_of_running_jobs_holds(make_world):
    world = make_world(max_running_jobs=2, max_running_jobs_per_project=9)
    ids = [create(world) for _ in range(3)]
    for _ in range(3):
        world.tick()
    assert statuses(world, ids) == ["running", "running", "queued"]
    assert "the cluster's limit of 2 running jobs" in world.messages(ids[2])[-1]


def test_a_project_at_its_limit_holds_no_other_project_up(make_world):
    world = make_world(max_running_jobs_per_project=1)
    mine = [create(world), create(world)]
    other = create(world)
    with world.database.write() as session:
        session.add(Project(id="proj_other", name="other", created_at=1))
        session.flush()
        session.query(Job).filter_by(id=other).one().project_id = "proj_other"
    for _ in range(3):
        world.tick()
    assert statuses(world, [*mine, other]) == ["running", "queued", "running"]
    assert "the project's limit of 1 running jobs" in world.messages(mine[1])[-1]


def test_a_job_that_waits_out_a_retry_holds_nobody_up(make_world):
    world = make_world()
    world.cluster = {"CPU": 1.0}
    first, second = create(world, 1.0), create(world, 1.0)
    world.until(first, "running")
    world.tick()
    world.ray.end_driver(f"{first}-1", -9)
    world.tick()
    world.tick()
    assert statuses(world, [first, second]) == ["queued", "running"]


def test_a_job_larger_than_the_cluster_fails_with_the_preflights_words_after_a_while(make_world):
    world = make_world()
    world.cluster = {"CPU": 2.0}
    large, small = create(world, 5.0), create(world, 0.5)
    world.tick()
    world.tick()
    assert statuses(world, [large, small]) == ["queued", "running"], "the cluster may still grow"
    assert "the job asks for 5 CPUs" in world.messages(large)[-1]
    world.time += UNFIT_PATIENCE_S
    job = world.until(large, "failed")
    assert job.error["code"] == "insufficient_resources"
    assert "lower one of these or add nodes" in job.error["message"]


def test_a_job_that_ran_before_waits_for_a_cluster_that_has_become_smaller(make_world):
    world = make_world()
    job_id = create(world, 5.0)
    world.until(job_id, "running")
    world.cluster = {"CPU": 2.0}
    world.ray.restart()
    for _ in range(4):
        world.tick(UNFIT_PATIENCE_S)
    assert world.job(job_id).status == "queued"
    world.cluster = {"CPU": 8.0}
    world.until(job_id, "running")
