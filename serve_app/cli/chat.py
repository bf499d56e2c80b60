"""`ferrata chat`: one answer, or a conversation, printed while it is written."""

import sys
import time
from typing import Annotated, Any

import typer

from serve_app.cli.errors import note
from serve_app.cli.options import Address, AsJson, Data, Key, connect
from serve_app.cli.output import print_json
from serve_app.client import RETRY_S, Client, FerrataError, Json

ANSWER_TIMEOUT_S = 600.0  # the engine may have to load the model first
PATIENCE_S = 600.0  # with a model that is being loaded, or engines that are busy
BUSY = 503


def chat(
    model: Annotated[str, typer.Argument(help="The model's name.", show_default=False)],
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to say; default: a conversation, or standard input."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Of one answer, at most.")] = None,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Talk with a model."""
    options = {"model": model, "temperature": temperature, "max_completion_tokens": max_tokens}
    body: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    messages = [{"role": "system", "content": system}] if system else []
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    with connect(address, key, data) as client:
        if prompt is not None:
            messages.append({"role": "user", "content": prompt})
            answer(client, body | {"messages": messages}, as_json)
            return
        note("An empty line or Ctrl-D ends the conversation.")
        while said := _ask():
            messages.append({"role": "user", "content": said})
            text = answer(client, body | {"messages": messages}, as_json)
            messages.append({"role": "assistant", "content": text})


def answer(client: Client, body: Json, as_json: bool, patience_s: float = PATIENCE_S) -> str:
    """Print the answer and return its text; wait for a model that is being loaded."""
    deadline_s = time.monotonic() + patience_s
    told = False
    while True:
        try:
            return _answer_once(client, body, as_json)
        except FerrataError as error:
            # 503 comes before the first word: nothing is printed twice.
            if error.status != BUSY or time.monotonic() > deadline_s:
                raise
            if not told:
                note(f"{error} (waiting, at most {patience_s:.0f} s)")
                told = True
            time.sleep(RETRY_S)


def _answer_once(client: Client, body: Json, as_json: bool) -> str:
    if as_json:
        done = client.call("POST", "chat/completions", body=body)
        print_json(done)
        return done["choices"][0]["message"]["content"]
    pieces = []
    events = client.stream_events(
        "POST", "chat/completions", body=body | {"stream": True}, timeout_s=ANSWER_TIMEOUT_S
    )
    for _, event in events:
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or ""
            pieces.append(piece)
            typer.echo(piece, nl=False)
    typer.echo()
    return "".join(pieces)


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""
