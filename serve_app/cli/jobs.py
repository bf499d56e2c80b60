"""`ferrata jobs`: create, list, get, cancel, pause, resume, events, follow, and what came out."""

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app.cli.bodies import (
    apply_settings,
    check_files,
    key_values,
    read_body,
    upload_files,
)
from serve_app.cli.errors import note
from serve_app.cli.files import send
from serve_app.cli.follow import follow_job, job_path
from serve_app.cli.options import Address, AsJson, Data, Key, connect
from serve_app.cli.output import print_json, print_object, print_table
from serve_app.client import IDEMPOTENCY, Client, Json

app = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)
FIELDS = (
    "id", "status", "stage", "progress", "model", "fine_tuned_model", "trained_tokens",
    "created_at", "finished_at", "error",
)  # fmt: skip
LIST_FIELDS = ("id", "status", "stage", "progress", "model", "fine_tuned_model", "created_at")
JobId = Annotated[str, typer.Argument(help="The job's id, ftjob-...", show_default=False)]
Limit = Annotated[int, typer.Option(help="At most so many, newest first.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of the body: NAME=VALUE or a.b=VALUE; value as YAML."),
]
Follow = Annotated[bool, typer.Option("--follow", help="Print events until the job ends.")]


def post_job(client: Client, path: str, body: Json, as_json: bool) -> Json:
    """Upload the body's local files and create the job, once even when the call is repeated."""
    body = upload_files(body, lambda file: send(client, file, "fine-tune", as_json))
    return client.call("POST", path, body=body, headers={IDEMPOTENCY: secrets.token_hex(16)})


@app.command()
def create(
    body: Annotated[
        Path | None, typer.Argument(help="A YAML or JSON file with the body of the create call.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to train.")] = None,
    training_file: Annotated[str | None, typer.Option(help="A file's id, or a path.")] = None,
    validation_file: Annotated[str | None, typer.Option(help="A file's id, or a path.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the new model's name.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of data order and sampling.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, several times.")] = None,
    settings: Set = None,
    follow: Follow = False,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Create a job. Local files that the body names are uploaded first."""
    given: dict[str, Any] = {
        "model": model,
        "training_file": training_file,
        "validation_file": validation_file,
        "suffix": suffix,
        "seed": seed,
        "metadata": key_values(metadata or [], "--metadata") or None,
    }
    whole = read_body(body) | {k: v for k, v in given.items() if v is not None}
    check_files(apply_settings(whole, settings or []))
    with connect(address, key, data) as client:
        job = post_job(client, "fine_tuning/jobs", whole, as_json)
        print_object(job, as_json, FIELDS)
        if follow:
            follow_job(client, job["id"], as_json)


@app.command("list")
def list_jobs(
    limit: Limit = 20,
    metadata: Annotated[list[str] | None, typer.Option(help="Only with NAME=VALUE.")] = None,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the project's jobs, newest first."""
    wanted = key_values(metadata or [], "--metadata")
    query = {f"metadata[{name}]": value for name, value in wanted.items()}
    with connect(address, key, data) as client:
        print_table(take(client, "fine_tuning/jobs", limit, query), as_json, LIST_FIELDS)


@app.command()
def get(
    job_id: JobId,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show a job."""
    with connect(address, key, data) as client:
        print_object(client.call("GET", job_path(job_id)), as_json, FIELDS)


@app.command()
def cancel(
    job_id: JobId,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """End a job; it commits a checkpoint first."""
    _post("cancel", job_id, address, key, data, as_json)


@app.command()
def pause(
    job_id: JobId,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Stop a job at a checkpoint; `resume` goes on from it."""
    _post("pause", job_id, address, key, data, as_json)


@app.command()
def resume(
    job_id: JobId,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Let a paused job go on."""
    _post("resume", job_id, address, key, data, as_json)


@app.command()
def events(
    job_id: JobId,
    limit: Limit = 20,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List a job's events, newest first."""
    with connect(address, key, data) as client:
        rows = take(client, f"{job_path(job_id)}/events", limit)
        print_table(rows, as_json, ("created_at", "level", "message"))


@app.command()
def follow(
    job_id: JobId,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's events from its first until it has ended."""
    with connect(address, key, data) as client:
        follow_job(client, job_id, as_json)


@app.command()
def rollouts(
    job_id: JobId,
    limit: Limit = 5,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show what the policy wrote, with rewards, newest step first."""
    with connect(address, key, data) as client:
        page = client.call("GET", f"{job_path(job_id)}/rollouts", query={"limit": limit})
    if as_json:
        print_json(page["data"])
        return
    for row in page["data"]:
        note("")
        print_object(row, False, tuple(row))


@app.command()
def checkpoints(
    job_id: JobId,
    limit: Limit = 10,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List a job's checkpoints, newest first; each is a model."""
    with connect(address, key, data) as client:
        rows = take(client, f"{job_path(job_id)}/checkpoints", limit)
        print_table(rows, as_json, ("step_number", "fine_tuned_model_checkpoint", "metrics"))


def take(client: Client, path: str, limit: int, query: Json | None = None) -> list[Json]:
    """The first `limit` items of a list."""
    items = client.pages(path, query, min(limit, 100))
    return [item for item, _ in zip(items, range(limit), strict=False)]


def _post(
    what: str,
    job_id: str,
    address: str | None,
    key: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    with connect(address, key, data) as client:
        print_object(client.call("POST", f"{job_path(job_id)}/{what}"), as_json, FIELDS)
