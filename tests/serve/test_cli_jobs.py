"""`ferrata jobs` and `train` against a real service; its jobs' lives are written into the store."""

import json
import shutil
import threading

import pytest
from conftest import MODEL, ROOT

from serve.running import running_api
from serve.test_cli import ROWS, as_json, ferrata, no_environment  # noqa: F401 (a fixture)
from serve_app.job_state import JobStatus
from serve_app.record import read_settings
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.events import add_event
from serve_app.store.jobs import get_job, set_status

REQUEST = ROOT / "examples" / "quickstart" / "request.yaml"
NEW_MODEL = "ft:ferrata-tiny:ferrata::Ab12Cd34"
HELD_OUT = [
    {"name": "base", "greedy": 0.0, "sampled": 0.1, "pass_at_8": 0.2, "ci95": [0.0, 0.1]},
    {"name": "srl", "greedy": 0.75, "sampled": 0.5, "pass_at_8": 0.9, "ci95": [0.7, 0.8]},
]


@pytest.fixture
def data(tmp_path, sqlite_template):
    settings = Settings(data=tmp_path / "data", models={"ferrata-tiny": str(MODEL)})
    settings.data.mkdir()
    shutil.copyfile(sqlite_template, settings.data / "ferrata.db")
    with running_api(settings) as data:
        yield data


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


def create(data, rows) -> str:
    """A new job's id."""
    words = ("--model", "ferrata-tiny", "--training-file", rows)
    return as_json("jobs", "create", *words, "--data", data)["id"]


def succeed(data, job_id: str) -> None:
    """Let the job live and end, as the manager writes it."""
    database = Database(read_settings(data).store_url)
    for status in (JobStatus.QUEUED, JobStatus.RUNNING):
        with database.write() as session:
            job = get_job(session, job_id, lock=True)
            set_status(session, job, status, message=f"The job is {status.value}")
            add_event(session, job, message="[step] 1/2 reward=0.5", level="warn")
    with database.write() as session:
        job = get_job(session, job_id, lock=True)
        rows = [row | {"num_problems": 9, "seconds": 1.0} for row in HELD_OUT]
        job.fine_tuned_model, job.metrics = NEW_MODEL, {"heldout": rows}
        set_status(session, job, JobStatus.SUCCEEDED, message="The job has succeeded")
    database.close()


def test_the_quickstarts_request_becomes_a_job_with_its_files_uploaded(data):
    made = as_json("jobs", "create", REQUEST, "--seed", 7, "--metadata", "a=b", "--data", data)
    assert (made["status"], made["seed"], made["metadata"]) == ("validating_files", 7, {"a": "b"})
    assert made["srl"]["max_steps"] == 9 and made["rlvr"]["max_steps"] == 30
    files = {f["id"]: f["filename"] for f in as_json("files", "list", "--data", data)}
    assert files[made["training_file"]] == "train.jsonl"
    assert files[made["heldout_file"]] == "heldout.jsonl"
    listed = as_json("jobs", "list", "--metadata", "a=b", "--data", data)
    assert [job["id"] for job in listed] == [made["id"]]
    assert as_json("jobs", "list", "--metadata", "a=c", "--data", data) == []


def test_a_job_is_followed_to_its_table_and_its_model(data, rows):
    job = create(data, rows)
    life = threading.Thread(target=succeed, args=(data, job))
    life.start()
    done = ferrata("jobs", "follow", job, "--data", data)
    life.join()
    order = ["Created", "is queued", "warning: [step] 1/2", "is running", "has succeeded"]
    assert [done.stdout.find(text) for text in order] == sorted(
        done.stdout.index(text) for text in order
    )
    assert "0.750" in done.stdout and "0.700-0.800" in done.stdout
    assert f"succeeded: {NEW_MODEL}" in done.stdout
    lines = ferrata("jobs", "follow", job, "--json", "--data", data).stdout
    assert json.loads(lines.splitlines()[-1])["fine_tuned_model"] == NEW_MODEL
    events = as_json("jobs", "events", job, "--limit", 2, "--data", data)
    assert len(events) == 2 and events[0]["message"] == "The job has succeeded"


def test_a_cancelled_job_ends_its_follower_with_status_one(data, rows):
    job = create(data, rows)
    assert as_json("jobs", "pause", job, "--data", data)["status"] == "paused"
    assert as_json("jobs", "resume", job, "--data", data)["status"] != "paused"
    assert as_json("jobs", "cancel", job, "--data", data)["status"] == "cancelled"
    done = ferrata("jobs", "follow", job, "--data", data, status=1)
    assert "cancelled" in done.stderr
    again = ferrata("jobs", "pause", job, "--data", data, status=1)
    assert "cancelled" in again.stderr
    assert as_json("jobs", "get", job, "--data", data)["status"] == "cancelled"
    assert as_json("jobs", "checkpoints", job, "--data", data) == []
    assert as_json("jobs", "rollouts", job, "--data", data) == []


def test_a_wrong_field_is_told_with_its_name(data, rows):
    settings = ["--set", "srl.max_stepz=9"]
    words = ("--model", "ferrata-tiny", "--training-file", rows)
    done = ferrata("jobs", "create", *words, *settings, "--data", data, status=1)
    assert "srl.max_stepz" in done.stderr


def test_train_starts_a_job_from_problems_alone(data, rows):
    words = ("train", rows, "--model", "ferrata-tiny", "--suffix", "mine", "--seed", 3)
    job = as_json(*words, "--set", "rlvr.max_steps=4", "--data", data)["job_id"]
    made = as_json("jobs", "get", job, "--data", data)
    assert (made["seed"], made["user_provided_suffix"]) == (3, "mine")
    assert made["rlvr"]["max_steps"] == 4
    done = ferrata("train", rows, "--model", "unknown", "--data", data, status=1)
    assert "unknown" in done.stderr
