"""What makes a create that is sent twice one job.

A create writes the row of its key in the transaction that writes the job. Whoever comes second with
the same key waits for that transaction and then sees its job: the table's primary key decides, not
the order in which requests were read.
"""

import time

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from serve_app.store.database import Database
from serve_app.store.tables import Idempotency

RETRY_WINDOW_S = 600  # a client's retry of the same body counts as one for so long


class OtherBodyError(Exception):
    """The key was used for another request."""


def claim(session: Session, project_id: str, key: str, body_hash: str) -> Idempotency:
    """Return the key's row, locked until the transaction ends; its `job_id` is "" when new.

    Raises OtherBodyError.
    """
    values = {
        "project_id": project_id,
        "key": key,
        "body_hash": body_hash,
        "job_id": "",
        "created_at": int(time.time()),
    }
    bind = session.get_bind()
    insert = sqlite.insert if bind.dialect.name == "sqlite" else postgresql.insert
    session.execute(insert(Idempotency).values(values).on_conflict_do_nothing())
    query = select(Idempotency).where(Idempotency.project_id == project_id, Idempotency.key == key)
    row = session.scalars(query.with_for_update()).one()
    if row.body_hash != body_hash:
        raise OtherBodyError(key)
    return row


def is_recent(row: Idempotency) -> bool:
    """True when a retry may still mean this row's job."""
    return time.time() - row.created_at <= RETRY_WINDOW_S


def fulfil(row: Idempotency, job_id: str) -> None:
    """Write which job the key made."""
    row.job_id, row.created_at = job_id, int(time.time())


def forget_older(database: Database, before_s: float) -> int:
    """Remove the keys that were used before `before_s`, Unix seconds; return how many."""
    with database.write() as session:
        done = session.execute(delete(Idempotency).where(Idempotency.created_at < before_s))
    return done.rowcount  # pyright: ignore[reportAttributeAccessIssue]
