"""`ferrata keys`, `secrets` and `db`: work on the store itself, on the service's own machine."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.errors import UsageError, store_errors
from serve_app.cli.options import AsJson, Data, data_folder
from serve_app.cli.output import print_json, print_object, print_table
from serve_app.record import read_settings
from serve_app.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from serve_app.store.database import Database

keys = typer.Typer(help="API keys; each belongs to a project.", no_args_is_help=True)
secrets = typer.Typer(help="Secrets of a project, encrypted in the store.", no_args_is_help=True)
db = typer.Typer(help="The store's schema.", no_args_is_help=True)
Store = Annotated[
    str | None,
    typer.Option(help="SQLAlchemy URL; default: that of the last `up`.", show_default=False),
]
Project = Annotated[str, typer.Option(help="The project's name.")]
SecretName = Annotated[str, typer.Argument(help="Its name, as of an environment variable.")]


@contextmanager
def opened(data: "Path | None", store: str | None) -> Iterator[tuple[Settings, "Database"]]:
    """The settings and the store, its schema brought up to date."""
    settings = read_settings(data_folder(data))
    if store is not None:
        settings = settings.model_copy(update={"store": store})
    from serve_app.store.database import Database
    from serve_app.store.migrate import migrate

    with store_errors():
        database = Database(settings.store_url)
        try:
            migrate(database)
            yield settings, database
        finally:
            database.close()


@keys.command("create")
def create_key(
    project: Project = "default",
    name: Annotated[str, typer.Option(help="To tell the project's keys apart.")] = "cli",
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and the project if it is new. The key is shown this once."""
    from serve_app.keys import Keyring

    with opened(data, store) as (_, database):
        info, key = Keyring(database).create_key(project, name)
    shown = {"api_key": key, "id": info.id, "project": project, "name": name}
    print_object(shown, as_json, tuple(shown))


@keys.command("list")
def list_keys(
    project: Annotated[str | None, typer.Option(help="Only of this project.")] = None,
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List keys by their first characters; the keys themselves are not stored."""
    from dataclasses import asdict

    from serve_app.keys import Keyring

    with opened(data, store) as (_, database):
        rows = [asdict(info) for info in Keyring(database).list_keys(project)]
    print_table(rows, as_json, ("id", "project_name", "name", "prefix", "created_at", "revoked_at"))


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, key_...", show_default=False)],
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """End a key: its next call is refused."""
    from serve_app.keys import Keyring

    with opened(data, store) as (_, database):
        Keyring(database).revoke(key_id)
    print_json({"id": key_id, "revoked": True}) if as_json else typer.echo(f"revoked {key_id}")


@secrets.command("set")
def set_secret(
    name: SecretName,
    project: Project = "default",
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Set a secret; its value is read from standard input, or asked for."""
    if sys.stdin.isatty():
        value = typer.prompt(f"Value of {name}", hide_input=True)
    else:
        value = sys.stdin.read().rstrip("\n")
    from serve_app.secrets import SecretBox

    with opened(data, store) as (settings, database):
        project_id = _project_id(database, project)
        SecretBox(settings, database).set(project_id, name, value)
    print_json({"name": name, "project": project}) if as_json else typer.echo(f"{name} is set")


@secrets.command("list")
def list_secrets(
    project: Project = "default", data: Data = None, store: Store = None, as_json: AsJson = False
) -> None:
    """List the names of a project's secrets."""
    from serve_app.secrets import SecretBox

    with opened(data, store) as (settings, database):
        names = SecretBox(settings, database).names(_project_id(database, project))
    print_table([{"name": name} for name in names], as_json, ("name",))


@secrets.command("delete")
def delete_secret(
    name: SecretName,
    project: Project = "default",
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Forget a secret."""
    from serve_app.secrets import SecretBox

    with opened(data, store) as (settings, database):
        if not SecretBox(settings, database).delete(_project_id(database, project), name):
            raise UsageError(f"project {project!r} has no secret {name!r}")
    print_json({"name": name, "deleted": True}) if as_json else typer.echo(f"deleted {name}")


@db.command("upgrade")
def upgrade(data: Data = None, store: Store = None, as_json: AsJson = False) -> None:
    """Bring the store to this version's schema; `up` does the same."""
    with opened(data, store) as (_, database):
        shown = {"store": database.url.render_as_string(hide_password=True), "schema": "newest"}
    print_object(shown, as_json, tuple(shown))


def _project_id(database: "Database", name: str) -> str:
    from sqlalchemy import select

    from serve_app.store.tables import Project as Row

    with database.read() as session:
        found = session.scalar(select(Row.id).where(Row.name == name))
    if found is None:
        raise UsageError(f"there is no project {name!r}: `ferrata keys create` makes one")
    return found
