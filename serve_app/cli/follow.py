"""A job while it runs: its events as lines, a bar of its progress, and the table at its end."""

import sys
import time
from contextlib import suppress
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from serve_app.cli.errors import STDERR, note
from serve_app.cli.output import print_json, show
from serve_app.client import Client, FerrataError, Json

LOOK_INTERVAL_S = 1.0
PATIENCE_S = 600.0  # a service that is started again goes on telling


def job_path(job_id: str) -> str:
    """Where the job is, below /v1."""
    return f"fine_tuning/jobs/{quote(job_id, safe='')}"


def follow_job(client: Client, job_id: str, as_json: bool) -> None:
    """Print the job's events until it has ended. Exits with 1 unless it succeeded."""
    with _progress(as_json) as bar:
        task, looked = bar.add_task("waiting", total=1.0), 0.0
        for event in client.follow(job_id, PATIENCE_S, _say_away):
            _print_event(event, as_json, bar)
            if bar.disable or time.monotonic() - looked < LOOK_INTERVAL_S:
                continue
            looked = time.monotonic()
            with suppress(FerrataError):  # the bar only waits for the next event
                job = client.call("GET", job_path(job_id))
                title = job.get("stage") or job["status"]
                bar.update(task, completed=job["progress"] or 0.0, description=title)
    job = client.call("GET", job_path(job_id))
    print_json(job) if as_json else print_end(job)
    if job["status"] != "succeeded":
        raise typer.Exit(1)


def print_end(job: Json) -> None:
    """What became of a job: its model, and the policies on held-out rows."""
    console = Console()
    if rows := (job.get("metrics") or {}).get("heldout"):
        from train.progress import report_table  # what `python -m train` shows, too

        console.print(report_table({"rows": rows}))
    if job["status"] == "succeeded":
        console.print(f"{job['id']} succeeded: {job['fine_tuned_model']}", highlight=False)
    else:
        error = (job.get("error") or {}).get("message", "")
        STDERR.print(f"{job['id']} {job['status']}: {error}", markup=False)


def _progress(as_json: bool) -> Progress:
    """On standard error, so that events on standard output stay clean."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=STDERR, disable=as_json or not STDERR.is_terminal)


def _say_away(error: FerrataError) -> None:
    note(f"{error}; trying again for {PATIENCE_S:g} s")


def _print_event(event: Json, as_json: bool, bar: Progress) -> None:
    if as_json:
        print_json(event)
        return
    mark = {"warn": "warning: ", "error": "error: "}.get(event["level"], "")
    line = f"{show('created_at', event['created_at'])} {mark}{event['message']}"
    if sys.stdout.isatty():  # above the bar
        bar.console.print(line, highlight=False, markup=False)
    else:
        typer.echo(line)
