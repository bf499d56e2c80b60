"""Who may send which key where."""

import pytest

from rollout.verifiers.grader_keys import PROJECT_VARIABLE, read_key, secrets_of
from rollout.verifiers.hosts import HOSTS_VARIABLE
from rollout.verifiers.http_json import HttpError

PUBLIC = "https://collector.example.com/v1"


def test_an_operators_key_goes_only_to_the_hosts_that_he_listed(monkeypatch):
    monkeypatch.setenv("FERRATA_GRADER_JUDGE", "operators")
    assert read_key("FERRATA_GRADER_JUDGE", PUBLIC) == "operators", "without a service: no rule"
    monkeypatch.setenv(HOSTS_VARIABLE, "")
    with pytest.raises(HttpError, match="is the operator's"):
        read_key("FERRATA_GRADER_JUDGE", PUBLIC)
    assert read_key("FERRATA_GRADER_JUDGE", PUBLIC, trusted=True) == "operators"
    monkeypatch.setenv(HOSTS_VARIABLE, "judge.example.com,10.1.0.0/16")
    for url in ("https://judge.example.com/v1", "http://10.1.2.3:8000"):
        assert read_key("FERRATA_GRADER_JUDGE", url) == "operators"
    for url in (PUBLIC, "http://10.2.0.1", "https://judge.example.com.evil.org"):
        with pytest.raises(HttpError, match="is the operator's"):
            read_key("FERRATA_GRADER_JUDGE", url)


def test_a_projects_secret_is_its_own_to_send_and_nothing_else_of_the_environment_is(monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "")
    monkeypatch.setenv("AWS_SECRET", "operators")
    monkeypatch.setenv("JUDGE_API_KEY", "mine")
    monkeypatch.setenv(PROJECT_VARIABLE, "HF_TOKEN,JUDGE_API_KEY")
    assert read_key("JUDGE_API_KEY", PUBLIC) == "mine"
    with pytest.raises(HttpError, match="the project has no secret AWS_SECRET"):
        read_key("AWS_SECRET", PUBLIC)


def test_a_process_of_several_projects_reads_the_secrets_of_the_one_that_asks(monkeypatch):
    monkeypatch.delenv(PROJECT_VARIABLE, raising=False)
    with secrets_of({"JUDGE_API_KEY": "mine", "PATH": "x"}.get):
        assert read_key("JUDGE_API_KEY", PUBLIC) == "mine"
        with pytest.raises(HttpError):
            read_key("OTHER_API_KEY", PUBLIC)
    with pytest.raises(HttpError, match="ferrata secrets set JUDGE_API_KEY"):
        read_key("JUDGE_API_KEY", PUBLIC)
