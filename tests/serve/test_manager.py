"""The job manager leads every job to its end: told, stopped, resumed, its secrets kept."""

import pytest

from serve.manager_world import PROJECT, World, spec
from serve_app.preparation import Preparation
from serve_app.ray_jobs import Submission
from serve_app.secrets import SecretKeyError
from serve_app.store.jobs import checkpoints, list_jobs, list_models
from serve_app.store.tables import StoredFile


@pytest.fixture
def world(database, tmp_path) -> World:
    """One service with an empty store."""
    return World(database, tmp_path / "data")


def test_a_job_is_checked_queued_run_and_succeeds_with_its_model_and_its_result_file(world):
    job_id = world.create()
    job = world.until(job_id, "succeeded")
    assert (job.steps_done, job.steps_planned) == (6, 6)
    assert job.fine_tuned_model == f"ft:ferrata-tiny:ferrata::{job_id[-8:]}"
    assert job.request["resolved"] == {"seed": 1}
    assert [row["name"] for row in job.metrics["heldout"]] == ["base", "rlvr"]
    assert job.trained_tokens == 4 * 100 + 1 + 2 + 3 + 4
    with world.database.read() as session:
        (file,) = session.query(StoredFile).all()
        (checkpoint,), _ = checkpoints(session, job_id)
        models = {model.name: model.kind for model in list_models(session, PROJECT)}
    assert job.result_files == [file.id]
    assert file.purpose == "fine-tune-results"
    assert checkpoint.step_number == 4
    assert models == {job.fine_tuned_model: "fine_tuned", checkpoint.model: "checkpoint"}
    assert [a.status for a in world.attempts(job_id)] == ["succeeded"]
    assert world.ray.submitted == [f"{job_id}-1"]


def test_the_events_tell_the_whole_story_in_order(world):
    job_id = world.create()
    world.until(job_id, "succeeded")
    told = world.messages(job_id)
    story = [
        "Created fine-tuning job",
        "batch size: 4",
        "Validated training file",
        "Attempt 1 runs",
        "Step 1/4, train mean reward=0.1",
        "Checkpoint created at step 2",
        "Step 4/4, train mean reward=0.4",
        "Held-out problems, policy rlvr: accuracy 0.500",
        "The job has succeeded",
    ]
    places = [next(i for i, m in enumerate(told) if m.startswith(line)) for line in story]
    assert places == sorted(places)
    assert [event.seq for event in world.events(job_id)] == list(range(1, len(told) + 1))


def test_a_job_whose_rows_are_bad_fails_with_the_first_bad_lines_as_events(world):
    job_id = world.create()
    error = {"code": "invalid_training_file", "message": "2 bad rows", "param": "training_file"}
    lines = [{"line": n, "message": "'role' is missing"} for n in range(1, 41)]
    world.prepared[job_id] = Preparation(error=error, bad_lines=lines)
    job = world.until(job_id, "failed")
    assert job.error == error
    told = [e for e in world.events(job_id) if e.level == "error" and "line" in e.data]
    assert [e.data["line"] for e in told] == list(range(1, 21))
    assert world.ray.submitted == []


def test_a_job_that_is_cancelled_while_it_is_checked_stays_cancelled(world):
    job_id = world.create()
    world.ask(job_id, "cancel")
    world.tick()
    assert world.job(job_id).status == "cancelled"
    assert world.num_prepared == 0


def test_a_job_that_the_driver_refuses_fails_at_once_with_the_drivers_words(world):
    job_id = world.create()
    world.tick()
    world.tick()
    log = "error: old\nconnecting\nerror: srl.max_step: unknown field; did you mean 'max_steps'?\n"
    world.ray.end_driver(f"{job_id}-1", 2, log)
    job = world.until(job_id, "failed")
    assert job.error == {
        "code": "invalid_job",
        "message": "srl.max_step: unknown field; did you mean 'max_steps'?",
        "param": None,
    }
    assert len(world.attempts(job_id)) == 1


def test_a_paused_job_commits_first_and_resumes_from_there(world):
    job_id = world.create()
    while world.job(job_id).steps_done < 3:
        world.tick()
    world.ask(job_id, "pause")
    world.manager.step()
    assert world.job(job_id).status == "running", "until its checkpoint is committed"
    world.until(job_id, "paused")
    assert world.ray.stops == [f"{job_id}-1"], "Ray is asked once"
    with world.database.read() as session:
        assert [c.step_number for c in checkpoints(session, job_id)[0]] == [3]
    world.ask(job_id, "resume")
    world.until(job_id, "succeeded")
    assert "stage rlvr continues at step 3" in world.messages(job_id)


def test_a_cancelled_job_stops_and_stays_so(world):
    job_id = world.create()
    while world.job(job_id).steps_done < 1:
        world.tick()
    world.ask(job_id, "cancel")
    job = world.until(job_id, "cancelled")
    assert job.finished_at is not None
    for _ in range(5):
        world.tick()
    assert world.job(job_id).status == "cancelled"
    assert world.ray.live() == []


def test_a_job_that_is_stopped_past_the_service_is_paused(world):
    job_id = world.create()
    while world.job(job_id).steps_done < 1:
        world.tick()
    world.ray.stop(f"{job_id}-1")
    world.until(job_id, "paused")
    assert "stopped from outside" in world.messages(job_id)[-1]


def test_a_job_sent_by_ray_job_submit_is_shown_to_the_project_of_the_settings(world, tmp_path):
    out = tmp_path / "elsewhere"
    (tmp_path / "s.json").write_text('{"rlvr": {"max_steps": 4}}')
    entrypoint = f"python -m train --spec {tmp_path / 's.json'} --out {out}"
    world.ray.submit(Submission("raysubmit_1", entrypoint, {}, {}))
    for _ in range(2):  # its driver calls, and calls again
        world.manager.register_external("raysubmit_1", str(out), spec(), 6)
    with world.database.read() as session:
        (job,), _ = list_jobs(session, PROJECT)
    assert (job.status, job.steps_planned) == ("running", 6)
    job = world.until(job.id, "succeeded")
    assert job.steps_done == 6
    assert world.ray.submitted == ["raysubmit_1"]


def test_a_job_sent_by_ray_job_submit_that_fails_is_not_launched_again(world, tmp_path):
    world.ray.submit(Submission("raysubmit_1", "python", {}, {}))
    world.manager.register_external("raysubmit_1", str(tmp_path / "out"), spec(), 6)
    world.ray.end_driver("raysubmit_1", 1, "RuntimeError: x")
    world.manager.step()
    with world.database.read() as session:
        (job,), _ = list_jobs(session, PROJECT)
    assert job.status == "failed"
    assert "send it again with the same --out to continue" in job.error["message"]


def test_a_projects_secrets_reach_the_driver_by_a_private_file_that_goes_with_the_attempt(world):
    world.secrets = {"HF_TOKEN": "hf_very_secret", "LD_PRELOAD": "/tmp/evil.so"}  # noqa: S108
    job_id = world.create()
    world.until(job_id, "running")
    path = world.secrets_file(job_id)
    assert path.read_text() == '{"HF_TOKEN": "hf_very_secret"}'
    assert path.stat().st_mode & 0o777 == 0o600
    submission = world.ray.records[f"{job_id}-1"].submission
    assert "hf_very_secret" not in repr(submission)
    assert submission.runtime_env["env_vars"]["FERRATA_SECRETS_FILE"] == str(path)
    world.tick()
    world.ray.end_driver(f"{job_id}-1", 1, "ValueError: token hf_very_secret is wrong")
    world.manager.step()
    assert not path.exists()
    assert "ValueError: token *** is wrong" in world.messages(job_id)[-1]
    assert all("hf_very_secret" not in (a.reason or "") for a in world.attempts(job_id))


def test_a_job_can_be_stopped_although_its_projects_secrets_cannot_be_read(world, monkeypatch):
    job_id = world.create()
    world.until(job_id, "running")

    def lost(_):
        raise SecretKeyError("secret.key is gone")

    monkeypatch.setattr(world.manager, "_secrets_of", lost)
    world.ask(job_id, "cancel")
    assert world.until(job_id, "cancelled").error is None


def test_words_that_no_store_takes_end_a_job_all_the_same(world):
    bad = world.create()
    line = {"line": 1, "message": "`message\0s` is an unknown field, \ud83d"}
    error = {"code": "invalid_training_file", "message": line["message"], "param": None}
    world.prepared[bad] = Preparation(error=error, bad_lines=[line])
    assert world.until(bad, "failed").error["message"].endswith("field, ?")
    assert "`message\ufffds` is an unknown field, ?" in world.messages(bad)
    crashed = world.create()
    world.until(crashed, "running")
    world.ray.end_driver(f"{crashed}-1", 1, "error: \0 is not a number")
    world.until(crashed, "queued")
    assert "\ufffd is not a number" in (world.attempts(crashed)[0].reason or "")
