"""One engine and its transactions, the same on SQLite and PostgreSQL.

`read()` and `write()` are the only ways in. A write transaction on SQLite takes the lock at its
start: a transaction that reads first and then writes could otherwise fail with "database is
locked" however long it is willing to wait.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.orm import Session

LOCK_PATIENCE_S = 30
WAL_RETRY_S = 0.01
SQLITE_BEGIN = "ferrata_begin"


class Database:
    """Threads may share it; processes open their own."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = create_engine(self.url, pool_pre_ping=not self.is_sqlite)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads, from one moment's state."""
        with Session(self.engine, expire_on_commit=False) as session:
            if not self.is_sqlite:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed, and on disk, when the block is left without an error."""
        engine = self.engine
        if self.is_sqlite:
            engine = engine.execution_options(**{SQLITE_BEGIN: "BEGIN IMMEDIATE"})
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    def ping(self) -> None:
        """Raises sqlalchemy.exc.SQLAlchemyError when the store does not answer."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def _prepare_sqlite(connection, _record) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_begin_sqlite` does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={LOCK_PATIENCE_S * 1000}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")  # acknowledged is durable, a power cut included
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Have the store keep a write-ahead log; waits while others make the same switch.

    SQLite itself does not: whatever its busy timeout, a switch that meets another connection's
    write lock fails at once, as for processes that open one new store together.
    """
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # The low byte: SQLITE_BUSY_RECOVERY and its like are kinds of busy too.
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(WAL_RETRY_S)


def _begin_sqlite(connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(options.get(SQLITE_BEGIN, "BEGIN"))
