"""A call for examples as events: progress, its end, and a client that goes away."""

import asyncio
import json
from concurrent.futures import Future

import pytest

from serve.test_native_routes import here  # noqa: F401 - a fixture
from serve_app.errors import unavailable
from serve_app.examples_stream import CANCEL, PROGRESS, stream_examples
from serve_app.request_types import RequestError


def events(text: str) -> list[tuple[str, dict]]:
    """(event, data) of a stream; comments and the last [DONE] are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_streamed_call_ends_with_the_answer_of_an_ordinary_one(tenant, here):  # noqa: F811
    rows = [{"messages": [{"role": "user", "content": f"{n:04d}:1sr,2li"}]} for n in range(3)]
    for path in ("/v1/examples/generate", "/v1/fine_tuning/examples"):
        answer = tenant.post(path, json={"rows": rows, "stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("data: [DONE]\n\n")
        [(event, result)] = events(answer.text)
        assert (event, result["examples_generated"]) == ("result", 3)
        content = tenant.get(f"/v1/files/{result['file_id']}/content").text
        assert len(content.splitlines()) == 3
    assert here == ["generate_examples"] * 2


def test_what_is_wrong_with_the_rows_is_an_event_with_the_usual_envelope(tenant, here):  # noqa: F811
    rows = [{"messages": [{"role": "user", "content": "What is love?"}]}]
    answer = tenant.post("/v1/fine_tuning/examples", json={"rows": rows, "stream": True})
    [(event, told)] = events(answer.text)
    assert event == "error"
    assert told["error"]["code"] == "unknown_problem_family"
    assert told["error"]["param"] == "rows"


@pytest.mark.parametrize("started", [True, False])
def test_a_client_that_goes_away_cancels(tmp_path, started):
    """Work that has begun is told by a file; work that waits for its turn never begins."""
    call: Future = Future()
    if started:
        call.set_running_or_notify_cancel()
    (tmp_path / PROGRESS).write_text('{"asked": 1}')

    async def read_one_event_and_leave() -> str:
        stream = stream_examples(call, tmp_path)
        text = await anext(stream) + await anext(stream)
        await stream.aclose()
        return text

    assert events(asyncio.run(read_one_event_and_leave())) == [("progress", {"asked": 1})]
    if started:
        assert (tmp_path / CANCEL).exists()
        call.set_result({})
    assert call.done()
    assert not tmp_path.exists(), "its folder goes with the call"


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (
            RequestError("rows: wrong", "rows", "nothing_to_solve"),
            "invalid_request_error",
            "nothing_to_solve",
        ),
        (unavailable("full", 5, code="cluster_full"), "server_error", "cluster_full"),
        (KeyError("secret"), "server_error", None),
    ],
)
def test_every_failure_ends_the_stream_with_an_envelope(tmp_path, raised, kind, code):
    call: Future = Future()
    call.set_exception(raised)

    async def whole() -> str:
        return "".join([part async for part in stream_examples(call, tmp_path / "gone")])

    [(event, told)] = events(asyncio.run(whole()))
    assert (event, told["error"]["type"], told["error"]["code"]) == ("error", kind, code)
    assert "secret" not in told["error"]["message"]
