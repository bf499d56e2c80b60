"""Brings a store's tables to what `tables.py` says. Whatever starts a service calls it first."""

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from serve_app.store.database import SQLITE_BEGIN, Database

_LOCK_ID = 0x66657272617461  # "ferrata": PostgreSQL's advisory locks are numbers


class StoreVersionError(RuntimeError):
    """The store was written by a version whose migrations this one does not have."""


def migrate(database: Database) -> None:
    """Bring a store, also an empty one, to head, in one transaction.

    Any number of processes may call it at once: one migrates, the others wait for it. Raises
    StoreVersionError for a store of a newer version.
    """
    config = alembic_config()
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == scripts.get_current_head():
        return
    if current is not None and current not in known:
        url = database.url.render_as_string(hide_password=True)
        raise StoreVersionError(
            f"the store {url} is at revision {current!r}, and this version knows "
            f"{sorted(known)}: start the version that wrote it, or a newer one"
        )
    # SQLite: the write lock; PostgreSQL: an advisory lock. Both end with the transaction.
    engine = database.engine.execution_options(**{SQLITE_BEGIN: "BEGIN IMMEDIATE"})
    with engine.begin() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's configuration, from the package itself: there is no file to find."""
    config = Config()
    folder = str(files("serve_app.store") / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config
