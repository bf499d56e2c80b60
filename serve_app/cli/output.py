"""How results are shown: one JSON object on a line, or a table for people."""

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from serve_app.cli.errors import STDERR

Json = dict[str, Any]


# What people copy into the next command is never broken.
NAMES = frozenset({"id", "fine_tuned_model", "fine_tuned_model_checkpoint"})
PIPE_WIDTH = 1000  # characters


def print_json(value: Any) -> None:
    """One line."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_object(value: Json, as_json: bool, fields: Sequence[str]) -> None:
    """An object as JSON, or its named fields one a line."""
    if as_json:
        print_json(value)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for field in fields:
        table.add_row(field, show(field, value.get(field)))
    Console().print(table)


def print_table(rows: Iterable[Json], as_json: bool, fields: Sequence[str]) -> None:
    """Rows as a JSON list, or as a table of the named fields."""
    if as_json:
        print_json(list(rows))
        return
    table = Table(box=None, pad_edge=False)
    for field in fields:
        table.add_column(field, overflow="fold", no_wrap=field in NAMES)
    for row in rows:
        table.add_row(*(show(field, row.get(field)) for field in fields))
    console = Console()
    # A pipe has no width: a line that is one row can be read by the next command.
    console.width = console.width if console.is_terminal else PIPE_WIDTH
    console.print(table)


def show(field: str, value: Any) -> str:
    """A field's value as people read it."""
    if value is None:
        return "-"
    if field.endswith("_at") and isinstance(value, int):
        moment = datetime.datetime.fromtimestamp(value)
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


@contextmanager
def transfer(title: str, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for bytes on standard error; yields what is told (done, total or None)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    hidden = quiet or not STDERR.is_terminal
    with Progress(*columns, console=STDERR, disable=hidden) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
