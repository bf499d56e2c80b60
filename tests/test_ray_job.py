"""The same job through `ray job submit`, with a token, from another folder."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT, free_port
from job_world import small_job

from train import checkpoint
from train.events import read_events

DEADLINE_S = 300
RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture(scope="module")
def cluster():
    """A head node of our own, with token authentication: (dashboard address, token)."""
    folder = Path(tempfile.mkdtemp(prefix="r"))  # short: Ray's socket paths have 107 bytes
    token, port = secrets.token_hex(32), free_port()
    env = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}"]
    command += [f"--dashboard-port={port}", f"--temp-dir={folder}", "--disable-usage-stats"]
    log = (folder / "start.log").open("w")
    process = subprocess.Popen(
        command, env=env, stdout=log, stderr=log, start_new_session=True, cwd=folder
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + DEADLINE_S
    while not is_up(address, token):
        assert process.poll() is None, (folder / "start.log").read_text()
        assert time.monotonic() < deadline, (folder / "start.log").read_text()
        time.sleep(0.5)
    yield address, token
    os.killpg(process.pid, signal.SIGKILL)  # SIGTERM has Ray wait half a minute
    process.wait(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


def get_jobs(address: str, token: str | None) -> list[dict]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(  # noqa: S310 (our own loopback address)
        f"{address}/api/jobs/", headers=headers
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def is_up(address: str, token: str) -> bool:
    try:
        get_jobs(address, token)
    except OSError:
        return False
    return True


def ray_job(cluster: tuple[str, str], folder: Path, *words: str) -> None:
    """Run a `ray job` command as a user would, from a folder elsewhere."""
    address, token = cluster
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV_")}
    env |= {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    deadline = time.monotonic() + DEADLINE_S
    while True:
        done = subprocess.run(
            [RAY, "job", *words],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        said = done.stdout[-3000:] + done.stderr[-3000:]
        # Ray's dashboard answers before its node's agent has registered.
        if "No available agent" not in said or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    assert done.returncode == 0, said


def submission(job: list[str], name: str, **env: str) -> list[str]:
    """The words that submit a job of `small_job`; its specification is in the working directory."""
    job = list(job)
    job[job.index("--spec") + 1] = "examples/quickstart/job.yaml"
    runtime = {"excludes": [".venv", "out", ".git"], "env_vars": {"HF_HUB_OFFLINE": "1", **env}}
    words = ["--working-dir", str(ROOT), "--submission-id", name]
    return [*words, "--runtime-env-json", json.dumps(runtime), "--", *job]


def status_of(cluster: tuple[str, str], name: str) -> str | None:
    """A job's status as the dashboard's jobs API shows it."""
    return {job["submission_id"]: job["status"] for job in get_jobs(*cluster)}.get(name)


def test_a_submitted_job_finishes_and_the_dashboards_jobs_api_shows_it(cluster, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    job = small_job(tmp_path / "out", tmp_path, "rlvr=null", "evaluation.pass_k=1")
    ray_job(cluster, tmp_path / "elsewhere", "submit", *submission(job, "small-1"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["base", "srl"]
    assert status_of(cluster, "small-1") == "SUCCEEDED"


def test_a_submitted_job_that_is_stopped_commits_first_within_the_grace_it_was_given(
    cluster, tmp_path
):
    out = tmp_path / "out"
    job = small_job(out, tmp_path, "rlvr=null", "data.heldout=null", "srl.save_interval=20")
    words = submission(job, "stopped-1", RAY_JOB_STOP_WAIT_TIME_S=str(DEADLINE_S))
    ray_job(cluster, tmp_path, "submit", "--no-wait", *words)
    deadline = time.monotonic() + DEADLINE_S
    while phase_of(out) != "training":
        assert status_of(cluster, "stopped-1") in ("PENDING", "RUNNING")
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ray_job(cluster, tmp_path, "stop", "stopped-1")  # waits until it has stopped
    assert status_of(cluster, "stopped-1") == "STOPPED"
    found = checkpoint.latest(out / "srl/checkpoints")
    assert found is not None
    told = read_events(out / "events.jsonl")[-1]["message"]
    assert told == f"stopped at step {found.step} of stage srl; the same command continues"


def phase_of(out: Path) -> str | None:
    now = out / "now.json"
    return json.loads(now.read_text())["phase"] if now.exists() else None


@pytest.mark.parametrize(("token", "status"), [(None, "401"), ("wrong", "403")])
def test_without_the_token_the_jobs_api_refuses(cluster, token, status):
    address, _ = cluster
    with pytest.raises(urllib.error.HTTPError, match=status):
        get_jobs(address, token)
