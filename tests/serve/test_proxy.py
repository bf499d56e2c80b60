"""What Ray Serve's proxy says by itself reaches clients as errors of the usual form."""

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient

from serve.kit import error_of
from serve_app.proxy import ProxyErrors


def asked(app, path: str = "/v1/models"):
    """The answer to one request, through the middleware."""
    return TestClient(ProxyErrors(app), raise_server_exceptions=False).get(path)


async def nothing(scope, receive, send):
    """A proxy whose replica died: it returns without an answer."""


async def breaks(scope, receive, send):
    """A proxy that fails."""
    raise RuntimeError("the secret")


async def breaks_later(scope, receive, send):
    """A proxy that fails under way."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    raise RuntimeError


@pytest.mark.parametrize("app", [nothing, breaks])
def test_a_replica_that_was_lost_is_a_503_to_be_tried_again(app):
    response = asked(app)
    error = error_of(response, 503)
    assert "lost" in error["message"]
    assert "secret" not in response.text
    assert int(response.headers["retry-after"]) > 0


def test_plain_text_becomes_the_message_and_headers_stay():
    headers = {"x-request-id": "mine", "retry-after": "7", "x-other": "1"}
    response = asked(PlainTextResponse("no replica", 503, headers=headers))
    assert error_of(response, 503) == {
        "message": "no replica",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert (response.headers["x-request-id"], response.headers["retry-after"]) == ("mine", "7")
    response = asked(PlainTextResponse("", 404, headers={"x-request-id": "mine"}))
    assert error_of(response, 404)["type"] == "invalid_request_error"


def test_answers_of_the_application_pass_untouched():
    assert asked(JSONResponse({"error": 1}, 500)).json() == {"error": 1}
    assert asked(PlainTextResponse("text")).text == "text"
    assert asked(StreamingResponse(iter(["a", "b"]))).text == "ab"
    assert asked(PlainTextResponse("draining", 503), "/-/healthz").text == "draining"
    with pytest.raises(RuntimeError):
        TestClient(ProxyErrors(breaks_later)).get("/")
