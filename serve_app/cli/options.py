"""Options that most commands share, and the service that they name."""

import os
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.errors import UsageError
from serve_app.client import Client
from serve_app.record import read_operator_key, read_record

BASE_URL, API_KEY, DATA = "FERRATA_BASE_URL", "FERRATA_API_KEY", "FERRATA_DATA"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Address = Annotated[
    str | None,
    typer.Option(help=f"URL of the service. Environment: {BASE_URL}.", show_default=False),
]
Key = Annotated[
    str | None, typer.Option(help=f"API key. Environment: {API_KEY}.", show_default=False)
]
Data = Annotated[
    Path | None,
    typer.Option(
        help=f"Data folder of a service on this machine. Environment: {DATA}. Default: ~/.ferrata.",
        show_default=False,
    ),
]


def data_folder(data: Path | None) -> Path:
    """The data folder that is meant."""
    return (data or Path(os.environ.get(DATA) or "~/.ferrata")).expanduser().resolve()


def connect(address: str | None, key: str | None, data: Path | None) -> Client:
    """A client of the service that the options, the environment or the data folder name.

    What is given on the command line wins; `--data` given there wins over the environment.
    """
    if data is None:
        address = address or os.environ.get(BASE_URL)
        key = key or os.environ.get(API_KEY)
    folder = data_folder(data)
    if address is None:
        record = read_record(folder)
        if record is None or record.state == "stopped":
            here = "" if data is None else f" --data {data}"
            raise UsageError(
                f"no service runs on {folder}: start one with `ferrata up{here}`, or name another "
                f"by --data, or by --address and --key ({BASE_URL} and {API_KEY})"
            )
        address = record.base_url
        key = key or read_operator_key(folder)
    return Client(address, key)
