"""The job manager goes on after what befalls drivers, launches, the cluster and itself."""

import threading

import pytest

from serve.manager_world import World
from serve_app.store.tables import StoredFile


@pytest.fixture
def world(database, tmp_path) -> World:
    """One service with an empty store."""
    return World(database, tmp_path / "data")


def test_rows_that_could_not_be_checked_are_checked_again_and_at_last_the_job_fails(world):
    job_id = world.create()
    world.prepared[job_id] = OSError(f"{world.settings.data}/files does not answer")
    world.manager.step()
    assert world.job(job_id).status == "validating_files"
    assert "could not be checked (OSError)" in world.messages(job_id)[-1]
    assert str(world.settings.data) not in world.messages(job_id)[-1], "paths stay in the log"
    world.manager.step()
    assert world.num_prepared == 1, "not before the delay is over"
    job = world.until(job_id, "failed", seconds=100)
    assert job.error["code"] == "server_error"
    assert world.num_prepared == world.settings.max_attempts


@pytest.mark.parametrize("exit_code", [-9, 137, 143, 1, None])
def test_a_driver_that_was_killed_goes_on_from_its_checkpoint_after_a_delay(world, exit_code):
    job_id = world.create()
    while world.job(job_id).steps_done < 3:
        world.tick()
    world.ray.end_driver(f"{job_id}-1", exit_code, "Traceback\nOutOfMemoryError: killed")
    world.manager.step()
    assert world.job(job_id).status == "queued"
    assert "failure 1 of 5 without progress" in world.messages(job_id)[-1]
    assert "3 steps done" in world.messages(job_id)[-1]
    world.manager.step()
    assert world.ray.submitted == [f"{job_id}-1"], "not before the delay is over"
    job = world.until(job_id, "succeeded")
    assert world.ray.submitted == [f"{job_id}-1", f"{job_id}-2"]
    assert "stage rlvr continues at step 2" in world.messages(job_id)
    steps = [e.data["step"] for e in world.events(job_id) if e.type == "metrics"]
    assert steps == [1, 2, 3, 4], "step 3 was taken twice and stands once, in its place"
    assert job.steps_done == 6
    assert job.trained_tokens == 4 * 100 + 1 + 2 + 3 + 4


def test_a_job_that_never_gets_further_fails_when_its_attempts_are_used_up(world):
    job_id = world.create()
    world.tick()
    for number in range(1, 6):
        world.tick()  # it starts
        assert world.ray.live() == [f"{job_id}-{number}"]
        world.ray.end_driver(f"{job_id}-{number}", 1, "RuntimeError: no GPU left")
        world.manager.step()
        world.time += 1000
        world.manager.step()
    job = world.job(job_id)
    assert job.status == "failed"
    assert job.error["code"] == "training_failed"
    assert "RuntimeError: no GPU left" in job.error["message"]
    assert "failure 5 of 5 without progress" in job.error["message"]


def test_a_driver_that_ignores_its_stop_is_killed_after_the_grace(world):
    job_id = world.create()
    while world.job(job_id).steps_done < 1:
        world.tick()
    world.ask(job_id, "cancel")
    world.manager.step()
    world.time += world.settings.stop_grace_s + 29
    world.manager.step()
    assert world.ray.kills == []
    world.time += 2
    world.manager.step()
    assert world.ray.kills == [f"{job_id}-1"]
    world.manager.step()
    assert world.job(job_id).status == "cancelled"


def test_after_a_restart_of_the_whole_cluster_jobs_go_on_where_they_were(world):
    job_id = world.create()
    while world.job(job_id).steps_done < 3:
        world.tick()
    world.ray.restart()
    world.manager = world.new_manager()
    world.until(job_id, "succeeded")
    assert [a.status for a in world.attempts(job_id)] == ["lost", "succeeded"]
    steps = [e.data["step"] for e in world.events(job_id) if e.type == "metrics"]
    assert steps == [1, 2, 3, 4]


def test_a_driver_that_outlived_its_ray_job_is_waited_for_and_not_counted_as_a_failure(world):
    job_id = world.create()
    while world.job(job_id).steps_done < 1:
        world.tick()
    world.ray.lose_supervisor(f"{job_id}-1")
    while len(world.attempts(job_id)) < 3:
        world.tick()
    assert [a.status for a in world.attempts(job_id)][:2] == ["lost", "busy"]
    for _ in range(10):
        world.ray.run_zombies()
    assert world.until(job_id, "succeeded").steps_done == 6
    steps = [e.data["step"] for e in world.events(job_id) if e.type == "metrics"]
    assert steps == [1, 2, 3, 4]


def test_while_ray_does_not_answer_nothing_is_decided(world):
    job_id = world.create()
    while world.job(job_id).steps_done < 1:
        world.tick()
    world.ray.down = True
    for _ in range(3):
        world.time += 1000
        world.manager.step()
    assert world.job(job_id).status == "running"
    assert "the fake cluster is down" in world.manager.errors[job_id]
    world.ray.down = False
    world.until(job_id, "succeeded")
    assert world.manager.errors == {}
    assert len(world.attempts(job_id)) == 1


def test_one_jobs_trouble_is_not_the_others(world):
    broken, whole = world.create(), world.create()
    world.ray.broken.add(f"{broken}-1")
    world.until(whole, "succeeded")
    assert world.manager.errors == {broken: f"the record of {broken}-1 is damaged"}


def test_a_ray_job_whose_attempt_has_ended_is_stopped(world):
    job_id = world.create()
    world.until(job_id, "running")
    world.tick()
    record = world.ray.records[f"{job_id}-1"]
    world.ask(job_id, "cancel")
    world.ray.records.clear()  # Ray does not know it: the attempt ends
    world.ray.drivers.clear()
    world.until(job_id, "cancelled")
    world.ray.records[f"{job_id}-1"] = record  # a launch that was under way all the time
    world.ray.drivers.append(record.driver)
    world.tick(31)
    world.tick()
    assert world.ray.live() == []
    assert world.job(job_id).status == "cancelled"


def test_a_launch_that_fails_is_told_and_tried_again(world):
    job_id = world.create()
    world.manager.step()
    world.ray.down = True
    world.manager.step()
    world.ray.down = False
    world.until(job_id, "succeeded")
    assert world.ray.submitted == [f"{job_id}-1"]


def test_why_a_launch_failed_is_the_operators_to_know(world, monkeypatch):
    job_id = world.create()
    world.manager.step()
    reason = f"{world.settings.data}/secret.key is gone"

    def submit(submission):
        raise OSError(reason)

    monkeypatch.setattr(world.ray, "submit", submit)
    world.manager.step()
    assert world.manager.errors[job_id] == reason
    assert "could not be launched" in world.messages(job_id)[-1]
    assert not any(reason in message for message in world.messages(job_id))


def test_two_managers_at_once_do_no_harm(world):
    ids = [world.create() for _ in range(3)]
    managers = [world.manager, world.new_manager()]
    failures = []

    def look_after(manager) -> None:
        try:
            for _ in range(40):
                manager.step()
        except Exception as error:
            failures.append(error)

    stop = threading.Event()

    def run_ray() -> None:
        while not stop.is_set():
            world.time += 1
            for name in world.ray.live():
                world.ray.run(name)

    threads = [threading.Thread(target=look_after, args=(m,)) for m in managers]
    ray = threading.Thread(target=run_ray)
    for thread in [*threads, ray]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    ray.join()
    assert failures == []
    for job_id in ids:
        job = world.until(job_id, "succeeded")
        assert job.steps_done == 6
        assert world.ray.submitted.count(f"{job_id}-1") == 1
        assert [a.status for a in world.attempts(job_id)] == ["succeeded"]
        events = world.events(job_id)
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        assert len({e.message for e in events}) == len(events), "nothing is told twice"
    with world.database.read() as session:
        assert session.query(StoredFile).count() == 3
