"""The manager's view of Ray's jobs, and its actor, on a real cluster.

Without a token: Ray reads RAY_AUTH_MODE once, when this process loads it. `test_survival` has one.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import ray
from conftest import ROOT

from serve_app import ray_head
from serve_app.manager import RayManagerLink, ensure_manager, prepare_on_ray
from serve_app.processes import kill_all, of_service
from serve_app.ray_jobs import RayJob, RayJobsClient, RayUnavailableError, Submission
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.migrate import migrate
from train import secrets

DEADLINE_S = 120
MARK = "test-ray-jobs"


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return Settings(data=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cluster(settings) -> Iterator[str]:
    """An own head node, this process connected to it; its dashboard's address."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(ROOT)
    env = ray_head.environment(settings, MARK) | {"RAY_AUTH_MODE": "disabled"}
    folder = ray_head.new_ray_folder()
    head = ray_head.launch(env, folder, settings.data / "head.log", num_cpus=2)
    try:
        ray_head.wait_until_ready(head, settings.data / "head.log")
        ray.init(head.address, namespace="ferrata", log_to_driver=False)
        yield head.dashboard
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)
        assert kill_all(lambda: of_service(MARK, [head.process]), 30) == []


@pytest.fixture(scope="module")
def jobs(cluster) -> RayJobsClient:
    return RayJobsClient()


def submission(name: str, code: str, **runtime_env: Any) -> Submission:
    """A Ray job that runs this Python code."""
    return Submission(name, f'exec {sys.executable} -c "{code}"', runtime_env, {"by": "test"})


def wait_for(found: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not wanted(value := found()):
        assert time.monotonic() < deadline, value
        time.sleep(0.1)
    return value


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_of(jobs: RayJobsClient, name: str) -> RayJob:
    return wait_for(lambda: jobs.status(name), lambda job: job.ended)


def test_a_submission_is_taken_once_and_followed_to_its_end(jobs):
    assert jobs.status("good").status == "unknown"
    job = submission("good", "print(1)")
    jobs.submit(job)
    jobs.submit(job)  # of a manager that does not know what the one before it did
    end = end_of(jobs, "good")
    assert (end.status, end.exit_code) == ("succeeded", 0)
    assert end.metadata is not None
    assert end.metadata["by"] == "test"
    assert [j.submission_id for j in jobs.submissions()].count("good") == 1


def test_a_failures_exit_code_and_last_words_are_told(jobs):
    jobs.submit(submission("bad", "import sys; print('error: x'); sys.exit(2)"))
    end = end_of(jobs, "bad")
    assert (end.status, end.exit_code) == ("failed", 2)
    assert "error: x" in end.message


def test_a_stopped_driver_gets_the_jobs_own_grace_to_commit(jobs, tmp_path):
    code = (
        "import pathlib, signal, sys, time; "
        "out = pathlib.Path(sys.argv[1]); "
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(5), (out / 'committed').touch(), "
        "sys.exit(143))); (out / 'ready').touch(); time.sleep(600)"
    )
    # Ray's own grace is 3 seconds; a job's environment gives more, on clusters of others too.
    environment = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}
    job = submission("stopped", code, **environment)
    jobs.submit(Submission("stopped", f"{job.entrypoint} {tmp_path}", job.runtime_env, {}))
    wait_for(lambda: (tmp_path / "ready").exists(), bool)
    jobs.stop("stopped")
    assert end_of(jobs, "stopped").status == "stopped"
    assert (tmp_path / "committed").exists()
    jobs.stop("stopped")
    jobs.stop("never heard of")


def test_a_driver_that_ignores_its_stop_is_ended_by_kill(jobs, tmp_path):
    code = (
        "import os, pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
    )
    pid_file = tmp_path / "pid"
    job = submission("deaf", code)
    environment = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "600"}}
    jobs.submit(Submission("deaf", f"{job.entrypoint} {pid_file}", environment, {}))
    pid = int(wait_for(lambda: pid_file.exists() and pid_file.read_text(), bool))
    jobs.stop("deaf")
    jobs.kill("deaf")
    # A container's first process may never collect what is left of it.
    wait_for(lambda: runs(pid), lambda alive: not alive)
    assert end_of(jobs, "deaf").status == "failed"
    jobs.kill("deaf")


def test_secrets_reach_the_driver_and_its_workers_and_no_one_else_is_told_them(
    jobs, tmp_path, settings
):
    path = tmp_path / "secrets.json"
    secrets.write(path, {"HF_TOKEN": "hf_made_up"})
    code = (
        "import os, ray; from train import secrets; secrets.load(); ray.init(log_to_driver=False); "
        "task = ray.remote(lambda: os.environ['HF_TOKEN'][:2]); "
        "print('seen:', os.environ['HF_TOKEN'][:2], ray.get(task.remote()))"
    )
    jobs.submit(
        submission(
            "secretive",
            code,
            env_vars={secrets.SECRETS_FILE_VARIABLE: str(path)},
            worker_process_setup_hook=secrets.SETUP_HOOK,
        )
    )
    end = end_of(jobs, "secretive")
    assert end.status == "succeeded", end.message
    logs = jobs._call("get_job_logs", "secretive")
    assert "seen: hf hf" in logs
    assert "hf_made_up" not in logs + repr(jobs._call("list_jobs"))


def test_a_cluster_that_does_not_answer_is_told_apart_from_a_job_that_is_not_known():
    with pytest.raises(RayUnavailableError, match="get_job_info"):
        RayJobsClient("http://127.0.0.1:9").status("x")


def test_what_went_wrong_in_a_preparation_is_told_without_a_trace(jobs, settings):
    migrate(Database(settings.store_url))
    with pytest.raises(LookupError, match=r"^'?there is no job ftjob-none in the store"):
        prepare_on_ray(settings, "ftjob-none")


def test_there_is_one_manager_which_comes_back_when_killed_and_follows_new_settings(jobs, settings):
    ensure_manager(settings)
    link = RayManagerLink(settings)
    link.nudge()
    wait_for(link.health, lambda health: health["ok"])
    first = ray.get(ensure_manager(settings).pid.remote())
    assert ray.get(ensure_manager(settings).pid.remote()) == first
    os.kill(first, signal.SIGKILL)
    wait_for(link.health, lambda health: health["ok"])
    second = ray.get(ensure_manager(settings).pid.remote())
    assert second != first
    changed = settings.model_copy(update={"max_running_jobs": 3})
    manager = ensure_manager(changed)
    assert ray.get(manager.settings.remote())["max_running_jobs"] == 3
    assert ray.get(manager.pid.remote()) != second
    ray.kill(manager)
    health = wait_for(RayManagerLink(changed).health, lambda health: health["ok"])
    assert health["detail"] == "jobs are looked after"
