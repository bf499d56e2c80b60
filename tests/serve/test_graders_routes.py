"""Graders over HTTP: checked, and run over one sample off the event loop."""

import threading

import pytest
from openai.types.fine_tuning.alpha import GraderRunResponse, GraderValidateResponse

from rollout.verifiers.grader_run import ERROR_DETAILS, ERROR_FLAGS
from rollout.verifiers.hosts import HOSTS_VARIABLE
from serve.kit import error_of

URL = "/v1/fine_tuning/alpha/graders"
CHECK = {
    "type": "string_check",
    "name": "check",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.word }}",
    "operation": "eq",
}


def test_a_right_grader_is_given_back_as_it_came(tenant):
    reply = tenant.post(f"{URL}/validate", json={"grader": CHECK})
    assert reply.json() == {"grader": CHECK}
    GraderValidateResponse.model_validate(reply.json(), strict=True)
    whole = {"type": "multi", "name": "m", "calculate_output": "a", "graders": {"a": CHECK}}
    assert tenant.post(f"{URL}/validate", json={"grader": whole}).json()["grader"] == whole


@pytest.mark.parametrize(
    ("grader", "param"),
    [
        ({"type": "nothing"}, "grader.type"),
        ({}, "grader.type"),
        (CHECK | {"operation": "is"}, "grader.operation"),
        (CHECK | {"extra": 1}, "grader.extra"),
        ("text", "grader"),
        (None, "grader"),
    ],
)
@pytest.mark.parametrize("route", ["validate", "run"])
def test_a_wrong_grader_is_a_400_that_names_the_field(tenant, grader, param, route):
    sample = {"model_sample": "x"} if route == "run" else {}
    error = error_of(tenant.post(f"{URL}/{route}", json={"grader": grader, **sample}), 400)
    assert error["param"] == param


def test_a_run_answers_in_the_contracts_form(tenant):
    body = {"grader": CHECK, "model_sample": "yes", "item": {"word": "yes"}}
    reply = tenant.post(f"{URL}/run", json=body).json()
    GraderRunResponse.model_validate(reply, strict=True)
    assert reply["reward"] == 1.0
    assert set(reply["metadata"]["errors"]) == {*ERROR_FLAGS, *ERROR_DETAILS}
    body = {"grader": CHECK, "model_sample": "yes"}
    reply = tenant.post(f"{URL}/run", json=body).json()
    assert reply["metadata"]["errors"]["invalid_variable_error"] is True


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model_sample": 5}, "model_sample"),
        ({"model_sample": None}, "model_sample"),
        ({"model_sample": "x", "item": [1]}, "item"),
        ({"model_sample": "x", "item": "text"}, "item"),
        ({"model_sample": "x", "extra": 1}, "extra"),
        ({}, "model_sample"),
    ],
)
def test_a_sample_is_text_and_an_item_an_object(tenant, fields, param):
    error = error_of(tenant.post(f"{URL}/run", json={"grader": CHECK, **fields}), 400)
    assert error["param"] == param


def test_code_runs_in_the_sandbox_from_the_routes_threads(tenant):
    source = "def grade(sample, item):\n    return len(sample['output_text']) / 10"
    grader = {"type": "python", "name": "p", "source": source}
    rewards = []

    def run(text: str) -> None:
        body = {"grader": grader, "model_sample": text}
        rewards.append(tenant.post(f"{URL}/run", json=body).json()["reward"])

    threads = [threading.Thread(target=run, args=("x" * n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(rewards) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_a_grader_that_names_a_private_address_is_refused_by_every_route(tenant, monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "")
    grader = {"type": "endpoint", "url": "http://169.254.169.254/latest/meta-data"}
    for route, sample in (("validate", {}), ("run", {"model_sample": "x"})):
        error = error_of(tenant.post(f"{URL}/{route}", json={"grader": grader, **sample}), 400)
        assert error["param"] == "grader.url"
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    error = error_of(tenant.post("/v1/fine_tuning/jobs", json=tenant.body(method=method)), 400)
    assert error["param"] == "method.reinforcement.grader.url"
