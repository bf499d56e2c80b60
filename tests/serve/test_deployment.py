"""The application under Ray Serve, as `ferrata up` deploys it."""

import json

import httpx
import pytest

from serve.kit import error_of

GRADERS = "/fine_tuning/alpha/graders"


@pytest.fixture
def http(running_service):
    """A client of the running service."""
    headers = {"authorization": f"Bearer {running_service.api_key}"}
    with httpx.Client(
        base_url=running_service.base_url, headers=headers, timeout=60, trust_env=False
    ) as client:
        yield client


def ids_of(response: httpx.Response) -> list[str]:
    """Every x-request-id of a response."""
    return response.headers.get_list("x-request-id")


@pytest.mark.slow
class TestRunning:
    """One running service, asked in several ways."""

    def test_everything_is_well(self, running_service):
        url = running_service.base_url.removesuffix("/v1") + "/healthz"
        answer = httpx.get(url, trust_env=False, timeout=60)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        assert {answer.json()[part]["ok"] for part in ("store", "ray", "engine")} == {True}

    def test_a_request_has_one_id_and_a_sane_one_is_kept(self, http):
        assert len(ids_of(http.get("/models"))) == 1
        assert ids_of(http.get("/models", headers={"x-request-id": "mine"})) == ["mine"]

    def test_errors_have_their_form_behind_the_proxy_too(self, http):
        for url, status in (("/nothing", 404), ("/fine_tuning/jobs/ftjob-x", 404)):
            error_of(http.get(url), status)
        error_of(http.put("/models"), 405)
        error_of(http.get("/models", headers={"authorization": "Bearer x"}), 401)

    def test_graders_run_in_the_replica_and_reach_no_private_address(self, http):
        source = "def grade(sample, item):\n    return 0.25"
        grader = {"type": "python", "name": "p", "source": source}
        answer = http.post(f"{GRADERS}/run", json={"grader": grader, "model_sample": "x"})
        assert answer.json()["reward"] == 0.25
        grader = {"type": "endpoint", "url": "http://127.0.0.1:8265/api/jobs/"}
        error = error_of(http.post(f"{GRADERS}/validate", json={"grader": grader}), 400)
        assert error["param"] == "grader.url"

    def test_work_beside_jobs_runs_on_the_cluster(self, http):
        rows = [{"messages": [{"role": "user", "content": f"{n:04d}:1sr,2li"}]} for n in range(20)]
        answer = http.post("/examples/generate", json={"rows": rows, "num_examples": 5})
        assert answer.status_code == 200, answer.text
        assert answer.json()["examples_generated"] == 5
        body = {"rows": rows, "num_examples": 4, "stream": True}
        with http.stream("POST", "/fine_tuning/examples", json=body) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in stream.iter_lines() if line and line[0] != ":"]
        assert (lines[0], lines[-1]) == ("event: result", "data: [DONE]")
        assert json.loads(lines[1].removeprefix("data: "))["examples_generated"] == 4
