"""The thin client against transports that misbehave: what a network does to a long call."""

import json

import httpx
import pytest

from serve_app.cli import chat
from serve_app.client import Client, FerrataError

EVENTS = [{"id": f"e{n}", "object": "event", "message": str(n)} for n in range(5)]


def sse(events, done: bool) -> bytes:
    parts = [f"id: {e['id']}\nevent: message\ndata: {json.dumps(e)}\n\n" for e in events]
    return ("".join([": keep-alive\n\n", *parts]) + ("data: [DONE]\n\n" if done else "")).encode()


def client_of(handler) -> Client:
    return Client("http://service", "key", transport=httpx.MockTransport(handler))


def test_a_stream_that_breaks_is_followed_from_its_last_event(monkeypatch):
    monkeypatch.setattr("serve_app.client.RETRY_S", 0.0)
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        last = request.headers.get("last-event-id")
        asked.append(last)
        if len(asked) == 2:
            raise httpx.ConnectError("nobody is there", request=request)
        rest = EVENTS[int(last[1:]) + 1 :] if last else EVENTS[:3]
        return httpx.Response(200, content=sse(rest, done=last is not None))

    told = []
    assert list(client_of(answer).follow("job", away=told.append)) == EVENTS
    assert len(told) == 1 and "stream ended" in str(told[0])
    assert asked == [None, "e2", "e2"]


def test_following_a_job_that_is_unknown_ends_at_once():
    body = {"error": {"message": "no such job", "type": "x", "param": "id", "code": "c"}}
    with pytest.raises(FerrataError, match="no such job") as raised:
        list(client_of(lambda _: httpx.Response(404, json=body)).follow("job"))
    assert (raised.value.status, raised.value.code, raised.value.param) == (404, "c", "id")


def test_an_error_within_a_stream_is_raised():
    body = b'data: {"error": {"message": "the engine died", "code": "e"}}\n\n'
    stream = client_of(lambda _: httpx.Response(200, content=body)).stream_events("POST", "chat")
    with pytest.raises(FerrataError, match="the engine died"):
        list(stream)


def test_a_proxys_page_is_told_as_it_is():
    client = client_of(lambda _: httpx.Response(502, text="<h1>Bad Gateway</h1>"))
    with pytest.raises(FerrataError, match="Bad Gateway") as raised:
        client.call("GET", "models")
    assert raised.value.may_pass


def test_an_answer_that_is_no_json_asks_whether_this_is_the_service():
    with pytest.raises(FerrataError, match="is this a Ferrata service"):
        client_of(lambda _: httpx.Response(200, text="<html>")).call("GET", "models")


def test_a_download_that_breaks_off_leaves_no_file(tmp_path):
    def broken():
        yield b"half"
        raise httpx.ReadError("gone")

    client = client_of(lambda _: httpx.Response(200, content=broken()))
    with pytest.raises(FerrataError, match="does not answer: gone"):
        client.download("files/f/content", tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_pages_are_followed_to_their_end_without_doubles():
    rows = [{"id": str(n)} for n in range(5)]

    def answer(request: httpx.Request) -> httpx.Response:
        after = request.url.params.get("after")
        rest = rows[int(after) + 1 :] if after else rows
        return httpx.Response(200, json={"data": rest[:2], "has_more": len(rest) > 2})

    assert list(client_of(answer).pages("x")) == rows


def test_chat_waits_for_a_model_that_is_being_loaded(monkeypatch, capsys):
    monkeypatch.setattr(chat, "RETRY_S", 0.0)
    busy = {"error": {"message": "m is being loaded", "type": "x", "param": None, "code": "c"}}
    chunk = {"choices": [{"delta": {"content": "1960"}}]}
    answers = [
        httpx.Response(503, json=busy),
        httpx.Response(503, json=busy),
        httpx.Response(200, content=sse([chunk | {"id": "e"}], done=True)),
    ]
    client = client_of(lambda _: answers.pop(0))
    assert chat.answer(client, {"model": "m", "messages": []}, as_json=False) == "1960"
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("m is being loaded")) == ("1960\n", 1)
    with pytest.raises(FerrataError, match="m is being loaded"):
        chat.answer(
            client_of(lambda _: httpx.Response(503, json=busy)), {}, as_json=True, patience_s=0
        )
