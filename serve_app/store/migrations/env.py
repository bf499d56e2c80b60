"""Run by Alembic: by `serve_app.store.migrate`, which hands its connection over, or by a developer.

A developer writes the next migration against a store at head with
`alembic -x url=sqlite:////tmp/head.db revision --autogenerate --rev-id 0002 -m "what changes"`.
"""

from alembic import context
from sqlalchemy import Connection

from serve_app.store.database import Database
from serve_app.store.tables import Base


def _run(connection: Connection) -> None:
    # SQLite alters a table by copying it: batch mode.
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


def _run_for_developer() -> None:
    arguments = context.get_x_argument(as_dictionary=True)
    if "url" not in arguments:
        raise ValueError("say which store: alembic -x url=<SQLAlchemy URL> ...")
    database = Database(str(arguments["url"]))
    with database.engine.begin() as connection:
        _run(connection)
    database.close()


if context.is_offline_mode():
    raise ValueError("SQL scripts are not made here: serve_app.store.migrate.migrate(database)")
if (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    _run_for_developer()
