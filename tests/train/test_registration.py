"""A job that was sent past the service is told apart from one that the service itself started."""

import json
import os

import pytest

from rollout.verifiers.grader_keys import PROJECT_VARIABLE, project_secrets
from train import secrets
from train.registration import JOB_ID_KEY, submitted_job


def environment(**metadata: str) -> dict[str, str]:
    """What Ray gives the driver of a submitted job."""
    return {
        "RAY_ADDRESS": "127.0.0.1:6379",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {}, "metadata": metadata}),
    }


def test_only_a_ray_job_that_no_service_started_registers():
    assert submitted_job({}) is None
    assert submitted_job({"RAY_ADDRESS": "auto"}) is None
    assert submitted_job(environment(job_submission_id="raysubmit_1")) == "raysubmit_1"
    ours = environment(job_submission_id="ftjob-1-1", **{JOB_ID_KEY: "ftjob-1"})
    assert submitted_job(ours) is None


def test_secrets_are_written_for_their_owner_alone_and_become_environment_variables(
    tmp_path, monkeypatch
):
    path = tmp_path / "secrets.json"
    path.write_text("an earlier attempt's")
    path.chmod(0o644)
    secrets.write(path, {"FERRATA_TEST_TOKEN": "t", "SOME_API_KEY": "k"})
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv(secrets.SECRETS_FILE_VARIABLE, str(path))
    monkeypatch.setenv("SOME_API_KEY", "before")
    monkeypatch.setenv(PROJECT_VARIABLE, "")
    secrets.load()
    assert os.environ["SOME_API_KEY"] == "k"
    assert project_secrets() == {"SOME_API_KEY"}
    assert "FERRATA_TEST_TOKEN" not in os.environ


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "PYTHONPATH", "PATH", "RAY_AUTH_TOKEN", "FERRATA_SECRET_KEY", "hf_token"]
)
def test_no_secret_can_change_how_our_own_processes_run(name):
    assert secrets.passed_on({name: "x", "HF_TOKEN": "y"}) == {"HF_TOKEN": "y"}


def test_a_process_whose_secrets_are_gone_does_not_start_without_them(tmp_path, monkeypatch):
    monkeypatch.setenv(secrets.SECRETS_FILE_VARIABLE, str(tmp_path / "gone.json"))
    with pytest.raises(FileNotFoundError):
        secrets.load()
