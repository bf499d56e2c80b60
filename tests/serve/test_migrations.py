"""The migrations make exactly the tables of tables.py, however many processes ask for them."""

import sqlite3
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from conftest import ROOT
from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

from serve_app.store.database import Database
from serve_app.store.migrate import StoreVersionError, migrate
from serve_app.store.tables import Base

NUM_PROCESSES = 6
MIGRATE = """
import sys
from serve_app.store.database import Database
from serve_app.store.migrate import migrate
print("ready", flush=True)
sys.stdin.readline()
migrate(Database(sys.argv[1]))
"""


@pytest.fixture
def empty(empty_url):
    """A store without tables."""
    database = Database(empty_url)
    yield database
    database.close()


def differences(database: Database) -> list:
    """What Alembic would change to reach tables.py."""
    with database.engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)


def test_the_migrations_make_exactly_the_tables_of_the_code(empty):
    assert differences(empty) != []
    migrate(empty)
    assert differences(empty) == []


def test_a_missing_column_would_be_seen(database):
    assert differences(database) == []
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE uploads DROP COLUMN file_expires_after_s"))
    assert [change[0] for change in differences(database)] == ["add_column"]


def test_processes_that_migrate_one_empty_store_at_once_all_succeed(empty_url):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(NUM_PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:  # all are loaded: they start together
        worker.stdin.write("\n")
        worker.stdin.flush()
    errors = [worker.communicate()[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * NUM_PROCESSES, errors
    database = Database(empty_url)
    assert differences(database) == []
    database.close()


def test_a_new_store_that_another_process_is_writing_to_is_waited_for(tmp_path):
    path = tmp_path / "ferrata.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # before the store has its write-ahead log
    database = Database(f"sqlite:///{path}")
    with ThreadPoolExecutor(1) as threads:
        opened = threads.submit(database.ping)
        with pytest.raises(TimeoutError):
            opened.result(timeout=0.3)
        writer.execute("ROLLBACK")
        opened.result(timeout=30)
    with database.read() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
    database.close()
    writer.close()


def test_a_file_that_is_no_store_is_refused_without_waiting(tmp_path):
    (tmp_path / "ferrata.db").write_text("nothing that SQLite knows, and long enough " * 20)
    with pytest.raises(DatabaseError, match="file is not a database"):
        Database(f"sqlite:///{tmp_path / 'ferrata.db'}").ping()


def test_to_migrate_again_changes_nothing_and_keeps_the_rows(database):
    insert = text("INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'p', 1)")
    with database.engine.begin() as connection:
        connection.execute(insert)
    migrate(database)
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM projects")) == 1


def test_a_migration_that_breaks_off_leaves_nothing_half_done(empty, monkeypatch):
    def power_cut(*_arguments) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("alembic.op.create_index", power_cut)  # after the first tables
    with pytest.raises(RuntimeError, match="power cut"):
        migrate(empty)
    assert inspect(empty.engine).get_table_names() == []
    monkeypatch.undo()
    migrate(empty)
    assert differences(empty) == []


def test_a_store_of_a_newer_version_is_refused_by_its_revision(database):
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreVersionError, match=r"revision '9999'.*knows \['0001'\]"):
        migrate(database)


def test_the_migrations_are_in_the_wheel(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "serve_app", "train", "rollout"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run([*build, "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    folder = "serve_app/store/migrations/"
    assert {
        f"{folder}env.py",
        f"{folder}script.py.mako",
        f"{folder}versions/0001_tables.py",
    } <= set(names)
