"""Bodies are bounded before anybody is recognised, and hold only text that can be answered with."""

import asyncio
import json
from typing import Any

import pytest

from serve.kit import GRADER, error_of
from serve_app.body_guard import MAX_BYTES

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/x"])
@pytest.mark.parametrize(
    "path", ["/v1/fine_tuning/jobs", "/openai/v1/chat/completions", "/v1/uploads"]
)
def test_a_body_that_never_ends_is_cut_off_also_without_a_key(tenant, path, kind):
    num_received, answered = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal num_received
        num_received += 2**20
        assert num_received <= 2 * MAX_BYTES
        return {"type": "http.request", "body": b" " * 2**20, "more_body": True}

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", kind.encode())],
    }
    asyncio.run(tenant.app(scope, receive, send))
    assert answered[0]["status"] == 413
    assert b"x-request-id" in dict(answered[0]["headers"])
    assert json.loads(answered[1]["body"])["error"]["code"] == "too_large"
    assert num_received == MAX_BYTES + 2**20


@pytest.mark.parametrize("path", ["/v1/training/start", "/training/start"])
def test_rows_in_a_body_may_be_larger(tenant, path):
    padding = " " * (MAX_BYTES + 1)
    response = tenant.post(path, content=padding + "{}", headers=JSON)
    assert error_of(response, 400)["param"] == "model"


def test_files_have_a_limit_of_their_own(tenant):
    assert tenant.upload(b" " * (MAX_BYTES + 1) + b"{}\n")


def test_half_a_character_is_refused_before_it_can_spoil_a_list(tenant):
    body = tenant.body()
    body["method"]["reinforcement"]["grader"] = GRADER | {"reference": "\ud83d"}
    response = tenant.post("/v1/fine_tuning/jobs", content=json.dumps(body), headers=JSON)
    assert "half a character" in error_of(response, 400)["message"]
    assert tenant.get("/v1/fine_tuning/jobs").json()["data"] == []


def test_whole_characters_and_escaped_backslashes_are_text(tenant):
    for reference in ("\U0001f600", "\\ud83d"):
        body = tenant.body()
        body["method"]["reinforcement"]["grader"] = GRADER | {"reference": reference}
        response = tenant.post("/v1/fine_tuning/jobs", content=json.dumps(body), headers=JSON)
        assert response.status_code == 200, response.text
        method = response.json()["method"]
        assert method["reinforcement"]["grader"]["reference"] == reference


@pytest.mark.parametrize("value", ["Infinity", "NaN"])
def test_what_is_no_number_is_refused_by_name(tenant, value):
    body = json.dumps(tenant.body(rlvr={"learning_rate": 0.5})).replace("0.5", value)
    error = error_of(tenant.post("/v1/fine_tuning/jobs", content=body, headers=JSON), 400)
    assert error["param"] == "rlvr.learning_rate"


def test_graders_inside_each_other_without_end_are_refused(tenant):
    grader = GRADER
    for _ in range(300):
        grader = {"type": "multi", "graders": {"a": grader}, "calculate_output": "a"}
    url = "/v1/fine_tuning/alpha/graders/validate"
    error = error_of(tenant.post(url, json={"grader": grader}), 400)
    assert "multi grader inside another" in error["message"]
