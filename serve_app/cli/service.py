"""`ferrata up`, `down`, `status`: a service on this machine."""

import logging
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app.cli.bodies import apply_settings, key_values
from serve_app.cli.errors import STDERR, UsageError, note
from serve_app.cli.options import Address, AsJson, Data, Key, connect, data_folder
from serve_app.cli.output import print_json, print_object
from serve_app.record import read_record, read_settings
from serve_app.settings import Settings

DEFAULT_PORT = 8000


def up(
    port: Annotated[
        int | None, typer.Option(help=f"0: a free one. Default: as before, or {DEFAULT_PORT}.")
    ] = None,
    data: Data = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: as before, or 127.0.0.1.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="An existing Ray cluster, host:port or 'auto'; 'local' starts one. Default: as "
            "before, or 'local'."
        ),
    ] = None,
    num_cpus: Annotated[
        float | None, typer.Option(help="Logical CPUs of the cluster that is started.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL. Default: as before, or SQLite in --data.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of a model to train from; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting: NAME=VALUE; serve_app/settings.py lists them."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and start it again whenever it has ended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a service on this machine, and return when it answers.

    Settings are kept in the data folder: what is not given is as at the last `up`.
    """
    folder = data_folder(data)
    before = read_record(folder)
    whole = _settings(folder, store, model or [], settings or [])
    if port is None:
        port = before.port if before else DEFAULT_PORT
    host = host or (before.host if before else "127.0.0.1")
    from serve_app import cluster

    start = partial(cluster.up, whole, port=port, address=address, host=host, num_cpus=num_cpus)
    _show_warnings()
    with STDERR.status(f"Starting a service on {folder}"):
        running = start()
    if running.was_up:
        note(f"A service is up on {folder} already; `ferrata down` stops it.")
    shown = {
        "base_url": running.base_url,
        "api_key": running.api_key,
        "data": str(folder),
        "dashboard": running.dashboard,
        "was_up": running.was_up,
    }
    print_object(shown, as_json, ("base_url", "api_key", "data", "dashboard"))
    if watch:
        from serve_app.watch import watch as stay

        stay(folder, partial(start, port=running.port))


def down(
    data: Data = None,
    now: Annotated[
        bool, typer.Option("--now", help="Let no training job commit a checkpoint first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stop what `up` started; jobs go on at the next `up`."""
    folder = data_folder(data)
    from serve_app.cluster import down as stop

    _show_warnings()
    with STDERR.status(f"Stopping the service on {folder}"):
        was_up = stop(folder, 0.0 if now else None)
    if as_json:
        print_json({"data": str(folder), "was_up": was_up})
    else:
        typer.echo(f"The service on {folder} is down{'' if was_up else ' already'}.")


def status(
    address: Address = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Say whether a service answers, and what it says of its parts. Exits with 1 if it is not well.

    Without --address, of the service on this machine.
    """
    shown: dict[str, Any] = {}
    if address is None:
        from serve_app.cluster import state

        folder = data_folder(data)
        what, record = state(folder)
        shown = {"state": what, "data": str(folder)}
        if record is not None and what != "down":
            shown |= {"base_url": record.base_url, "dashboard": record.dashboard}
            shown |= {"cluster": record.address}
    if shown.get("state", "up") == "up":
        with connect(address, key, data if address is None else None) as client:
            health = client.health()
        shown |= {"base_url": client.base_url, "health": health}
    print_object(shown, as_json, tuple(shown))
    if shown.get("state", "up") != "up":
        raise typer.Exit(1)


def _settings(folder: Path, store: str | None, models: list[str], changes: list[str]) -> Settings:
    """The last settings with what is given now in their place."""
    before = read_settings(folder)
    given = before.model_dump(exclude_unset=True)
    if store is not None:
        given["store"] = store
    added = {
        name: str(Path(path).expanduser().resolve())
        for name, path in key_values(models, "--model").items()
    }
    for name, path in added.items():
        if not (Path(path) / "config.json").is_file():
            raise UsageError(f"--model {name}={path}: that folder holds no config.json")
    if added:
        given["models"] = before.models | added
    apply_settings(given, changes)
    return Settings.model_validate(given | {"data": folder})


def _show_warnings() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger("serve_app").addHandler(handler)
