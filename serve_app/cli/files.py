"""`ferrata files`: upload, list, get, download, delete."""

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.errors import UsageError
from serve_app.cli.options import Address, AsJson, Data, Key, connect
from serve_app.cli.output import print_json, print_object, print_table, transfer
from serve_app.client import Client, Json

app = typer.Typer(help="Files of rows and results.", no_args_is_help=True)
FIELDS = ("id", "filename", "bytes", "purpose", "status", "created_at")
FileId = Annotated[str, typer.Argument(help="The file's id, file-...", show_default=False)]


def check_file(path: Path) -> None:
    """Raises UsageError when there is no such file."""
    if not path.is_file():
        raise UsageError(f"{path} is no file; name one that is there")


def send(client: Client, path: Path, purpose: str, quiet: bool) -> Json:
    """Upload a file with a progress bar."""
    with transfer(f"Uploading {path.name}", quiet) as tell:
        return client.upload(path, purpose, tell)


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(help="A file of rows, one JSON object on a line.")],
    purpose: Annotated[str, typer.Option(help="What the file is for.")] = "fine-tune",
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file."""
    check_file(path)
    with connect(address, key, data) as client:
        print_object(send(client, path, purpose, as_json), as_json, FIELDS)


@app.command("list")
def list_files(
    purpose: Annotated[str | None, typer.Option(help="Only those for this.")] = None,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the project's files, newest first."""
    with connect(address, key, data) as client:
        print_table(client.pages("files", {"purpose": purpose}), as_json, FIELDS)


@app.command()
def get(
    file_id: FileId,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show a file's object."""
    with connect(address, key, data) as client:
        print_object(client.call("GET", f"files/{file_id}"), as_json, FIELDS)


@app.command()
def download(
    file_id: FileId,
    out: Annotated[
        Path | None, typer.Option(help="Where to; default: the file's name, here.")
    ] = None,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Download a file's content."""
    with connect(address, key, data) as client:
        name = Path(client.call("GET", f"files/{file_id}")["filename"]).name
        target = out or Path(name)
        if target.is_dir():
            target = target / name
        with transfer(f"Downloading {name}", as_json) as tell:
            num_bytes = client.download(f"files/{file_id}/content", target, tell)
    print_object(
        {"id": file_id, "path": str(target), "bytes": num_bytes}, as_json, ("path", "bytes")
    )


@app.command()
def delete(
    file_id: FileId,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Delete a file."""
    with connect(address, key, data) as client:
        answer = client.call("DELETE", f"files/{file_id}")
    print_json(answer) if as_json else typer.echo(f"deleted {file_id}")
