"""`ferrata models`: list, download, delete, select."""

import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated, cast
from urllib.parse import quote

import typer

from serve_app.cli.errors import UsageError
from serve_app.cli.files import check_file, send
from serve_app.cli.options import Address, AsJson, Data, Key, connect
from serve_app.cli.output import print_json, print_object, print_table, transfer
from serve_app.client import FerrataError

app = typer.Typer(help="Models to train from and to chat with.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The model's name.", show_default=False)]
SELECTION = "fine_tuning/model_selection"
SELECT_TIMEOUT_S = 1900.0  # the service gives a selection 1,800 s


@app.command("list")
def list_models(
    address: Address = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """List your own models, newest first, and those that the service starts from."""
    with connect(address, key, data) as client:
        rows = client.call("GET", "models")["data"]
        print_table(rows, as_json, ("id", "owned_by", "created"))


@app.command()
def download(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="The new folder; default: the model's name, here.")
    ] = None,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Download a model as a folder that transformers and vLLM load."""
    target = out or Path(name.replace(":", "-").replace("/", "-"))
    if target.exists():
        raise UsageError(f"{target} exists already: name another folder by --out")
    path = f"models/{quote(name, safe=':/')}/content"
    with connect(address, key, data) as client, transfer(f"Downloading {name}", as_json) as tell:
        unpack(client.stream_bytes(path), target, tell)
    num_bytes = sum(file.stat().st_size for file in target.iterdir())
    print_object({"id": name, "path": str(target), "bytes": num_bytes}, as_json, ("path", "bytes"))


@app.command()
def delete(
    name: Name,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Give up a model of your own; its job's checkpoints stay."""
    with connect(address, key, data) as client:
        answer = client.call("DELETE", f"models/{quote(name, safe=':/')}")
    print_json(answer) if as_json else typer.echo(f"deleted {name}")


@app.command()
def select(
    path: Annotated[Path, typer.Argument(help="A file of rows, one JSON object on a line.")],
    model: Annotated[
        list[str] | None, typer.Option(help="A candidate; repeat it. Default: every model.")
    ] = None,
    max_parameters: Annotated[int | None, typer.Option(help="The largest size.")] = None,
    min_context_tokens: Annotated[int | None, typer.Option(help="The shortest context.")] = None,
    max_memory_gib: Annotated[
        float | None, typer.Option(help="Memory of the devices that train it.")
    ] = None,
    max_device_hours: Annotated[
        float | None, typer.Option(help="Of the training, as far as it is known.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Of the training, at the catalogue's prices.")
    ] = None,
    num_problems: Annotated[int, typer.Option(help="Most problems for one candidate.")] = 32,
    k: Annotated[int, typer.Option(help="Samples of a problem.")] = 8,
    address: Address = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Measure models on a sample of your rows, and rank them by benefit and work."""
    constraints = {
        "models": model or None,
        "max_parameters": max_parameters,
        "min_context_tokens": min_context_tokens,
        "max_memory_gib": max_memory_gib,
        "max_device_hours": max_device_hours,
        "max_cost": max_cost,
        "num_problems": num_problems,
        "k": k,
    }
    body = {"task": path.stem, "constraints": constraints}
    check_file(path)
    with connect(address, key, data) as client:
        body["file"] = send(client, path, "fine-tune", as_json)["id"]
        answer = client.call("POST", SELECTION, body=body, timeout_s=SELECT_TIMEOUT_S)
    if as_json:
        print_json(answer)
        return
    fields = ("model_id", "score", "interval", "num_problems", "on_pareto_front", "reason")
    rows = [
        {**one, "num_problems": (one["measured"] or {}).get("num_problems")}
        for one in answer["candidates"]
    ]
    print_table(rows, as_json, fields)
    cost = answer["selection_cost"]
    apart = "is told apart" if cost["told_apart"] else "is not told apart from every other"
    typer.echo(
        f"{answer['selected_model_id']} {apart}; measuring took {cost['seconds']} s and "
        f"{cost['share_of_full_evaluation']:.0%} of a full evaluation's operations"
    )


def unpack(
    chunks: Iterator[tuple[bytes, int | None]],
    target: Path,
    tell: Callable[[int, int | None], None],
) -> None:
    """Unpack a stream of tar into a new folder, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", dir=target.parent))
    try:
        with tarfile.open(fileobj=cast(IO[bytes], _Reader(chunks, tell)), mode="r|") as tar:
            tar.extractall(temporary, filter="data")  # refuses links and ways out of the folder
        temporary.chmod(0o755)
        temporary.rename(target)
    except tarfile.TarError as error:
        raise FerrataError(f"the model did not arrive whole: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Reader:
    """Chunks as a file that `tarfile` reads, telling how much has come."""

    def __init__(
        self,
        chunks: Iterator[tuple[bytes, int | None]],
        tell: Callable[[int, int | None], None],
    ) -> None:
        self._chunks, self._tell = chunks, tell
        self._buffer, self._done = b"", 0

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end."""
        pieces, length = [self._buffer], len(self._buffer)
        while length < size and (found := next(self._chunks, None)) is not None:
            chunk, total = found
            pieces.append(chunk)
            length += len(chunk)
            self._done += len(chunk)
            self._tell(self._done, total)
        whole = b"".join(pieces)
        self._buffer = whole[size:]
        return whole[:size]
