"""Whatever goes wrong, a client reads the same envelope and can name its request."""

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from serve_app import errors
from serve_app.azure import AzurePaths
from serve_app.job_state import JobStatus, WrongStateError


class Body(BaseModel):
    """A body with one field that has bounds."""

    size: int = Field(ge=1)


def application(**options) -> TestClient:
    """An application whose routes fail in every way."""
    app = FastAPI()

    @app.post("/v1/body")
    def body(body: Body, limit: int = 1) -> dict:
        return {"size": body.size}

    raised = {
        "bug": ZeroDivisionError("the secret"),
        "state": WrongStateError(JobStatus.SUCCEEDED, "cancelled"),
        "store": OperationalError("SELECT secret", {}, Exception("secret")),
        "many": errors.too_many("slower", 2.4),
        "conflict": errors.conflict("another body", param="model"),
    }

    @app.get("/v1/raise/{what}")
    def fail(what: str) -> None:
        raise raised[what]

    @app.get("/v1/stream")
    def stream() -> StreamingResponse:
        def parts():
            yield "one"
            raise ZeroDivisionError

        return StreamingResponse(parts())

    app.add_middleware(AzurePaths)
    errors.install(app, **options)
    return TestClient(app)


@pytest.fixture
def client() -> TestClient:
    """A client of the failing application."""
    return application()


def error_of(response) -> dict:
    """The error of a response that has the envelope and nothing else, and an id."""
    assert response.headers["x-request-id"]
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"]
    return error


def test_a_wrong_body_is_a_400_that_names_the_field(client):
    response = client.post("/v1/body", json={"size": 0})
    assert response.status_code == 400
    assert error_of(response) == {
        "message": "size: Input should be greater than or equal to 1 (got 0)",
        "type": "invalid_request_error",
        "param": "size",
        "code": "invalid_value",
    }
    response = client.post("/v1/body?limit=x", json={"size": 1})
    assert (response.status_code, error_of(response)["param"]) == (400, "limit")
    response = client.post(
        "/v1/body", content=b'{"size"', headers={"content-type": "application/json"}
    )
    assert (response.status_code, error_of(response)["param"]) == (400, None)
    assert "no JSON" in error_of(response)["message"]


def test_unknown_paths_and_methods_have_the_envelope(client):
    response = client.get("/v1/nothing")
    assert (response.status_code, error_of(response)["code"]) == (404, "unknown_url")
    response = client.get("/v1/body")
    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_a_bug_is_a_500_that_tells_nothing_and_is_logged_with_the_requests_id(client, caplog):
    response = client.get("/v1/raise/bug", headers={"x-request-id": "mine-1"})
    assert response.status_code == 500
    assert error_of(response)["type"] == "server_error"
    assert "secret" not in response.text
    assert "mine-1" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_wrong_state_is_a_400_that_clients_do_not_retry(client):
    response = client.get("/v1/raise/state")
    assert response.status_code == 400
    assert response.headers["x-should-retry"] == "false"
    assert error_of(response)["message"] == "the job is succeeded, and cannot become cancelled"
    response = client.get("/v1/raise/conflict")
    assert (response.status_code, response.headers["x-should-retry"]) == (409, "false")


def test_a_store_that_is_down_is_a_503_to_be_tried_again(client):
    response = client.get("/v1/raise/store")
    assert (response.status_code, error_of(response)["code"]) == (503, "store_down")
    assert int(response.headers["retry-after"]) > 0
    assert "secret" not in response.text


def test_a_limit_says_when_to_come_back(client):
    response = client.get("/v1/raise/many")
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")


@pytest.mark.parametrize("sent", ["a\x0bb", "x" * 129, "", "<script>"])
def test_only_a_sane_id_of_the_caller_is_echoed(client, sent):
    response = client.get("/v1/nothing", headers={"x-request-id": sent})
    assert response.headers["x-request-id"].startswith("req_")
    sane = client.get("/v1/nothing", headers={"x-request-id": "trace:1.2_3-4"})
    assert sane.headers["x-request-id"] == "trace:1.2_3-4"


def test_an_id_is_sent_once_when_a_proxy_adds_it():
    response = application(request_id_header=False).get("/v1/nothing")
    assert "x-request-id" not in response.headers


def test_a_stream_that_fails_under_way_is_broken_off(client):
    with pytest.raises(ZeroDivisionError):
        client.get("/v1/stream")


@pytest.mark.parametrize("path", ["/openai", "/openai/v1"])
def test_azures_paths_lead_to_the_same_routes(client, path):
    response = client.post(f"{path}/body?api-version=2025-04-01-preview", json={"size": 3})
    assert response.json() == {"size": 3}
    assert client.post("/openaix/body", json={"size": 3}).status_code == 404
