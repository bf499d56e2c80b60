"""`ferrata train`: a file of problems, a model, and everything else chosen."""

from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app.cli.bodies import apply_settings, check_files, read_value
from serve_app.cli.errors import note
from serve_app.cli.follow import follow_job
from serve_app.cli.jobs import Follow, Set, post_job
from serve_app.cli.options import Address, AsJson, Data, Key, connect
from serve_app.cli.output import print_json


def train(
    problems: Annotated[Path, typer.Argument(help="A file of rows, one JSON object on a line.")],
    model: Annotated[str, typer.Option(help="The model to train; `ferrata models list`.")],
    validation: Annotated[
        Path | None, typer.Option(help="Rows that choose checkpoints; default: a share of yours.")
    ] = None,
    heldout: Annotated[
        Path | None, typer.Option(help="Rows that are read once, at the end, for a table.")
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(help="JSON, or @FILE; default: as the rows' reference_answer needs."),
    ] = None,
    num_examples: Annotated[
        str | None, typer.Option(help="How many rows get expert steps by a solver, or 'auto'.")
    ] = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the new model's name.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of data order and sampling.")] = None,
    settings: Set = None,
    follow: Follow = False,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Upload problems and train a model on them: SRL where rows have steps, then RLVR."""
    given: dict[str, Any] = {
        "model": model,
        "file": str(problems),
        "validation_file": str(validation) if validation else None,
        "heldout_file": str(heldout) if heldout else None,
        "grader": read_value(grader) if grader else None,
        "num_examples": read_value(num_examples) if num_examples else None,
        "suffix": suffix,
        "seed": seed,
    }
    body = {name: value for name, value in given.items() if value is not None}
    check_files(apply_settings(body, settings or []))
    with connect(address, key, data) as client:
        started = post_job(client, "training/start", body, as_json)
        if as_json:
            print_json(started)
        else:
            typer.echo(f"{started['job_id']}: {started['message']}")
        if follow:
            follow_job(client, started["job_id"], as_json)
        elif not as_json:
            note(f"follow it by: ferrata jobs follow {started['job_id']}")
