"""A job's events: appended without gaps, listed, followed."""

import time
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve_app.ids import new_id
from serve_app.store.tables import Event, Job


def add_event(
    session: Session,
    job: Job,
    *,
    message: str,
    key: str | None = None,
    level: str = "info",
    type: str = "message",  # noqa: A002 (the contract's word)
    data: dict[str, Any] | None = None,
    created_at: int | None = None,
) -> bool:
    """Append an event to a job whose row this transaction has locked; True when it is new.

    An event with the `key` of an earlier one takes that one's place, with its number and id: a
    step that was taken again after a restart.
    """
    message = storable(message)
    if key is not None and (earlier := event_with_key(session, job.id, key)) is not None:
        earlier.level, earlier.type, earlier.message = level, type, message
        earlier.data = data or {}
        return False
    event_id = new_id("ftevent-")
    event = Event(
        job_id=job.id,
        seq=job.next_event_seq,
        id=event_id,
        key=key or event_id,
        created_at=created_at or int(time.time()),
        level=level,
        type=type,
        message=message,
        data=data or {},
    )
    job.next_event_seq += 1
    session.add(event)
    session.flush()
    return True


def storable(text: str) -> str:
    """The text with a mark for what no store takes: NUL and halves of characters.

    Messages quote rows and drivers. One that could not be written would be tried again for ever.
    """
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def event_with_key(session: Session, job_id: str, key: str) -> Event | None:
    """The job's event of this key, if there is one."""
    return session.scalar(select(Event).where(Event.job_id == job_id, Event.key == key))


def list_events(
    session: Session, job_id: str, *, after: str | None = None, limit: int = 20
) -> tuple[list[Event], bool]:
    """Return (events, whether more follow), newest first.

    Raises KeyError for an `after` that is no event of the job.
    """
    query = select(Event).where(Event.job_id == job_id).order_by(Event.seq.desc())
    if after is not None:
        query = query.where(Event.seq < seq_of(session, job_id, after))
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], len(found) > limit


def events_since(session: Session, job_id: str, seq: int, limit: int = 200) -> list[Event]:
    """Events after number `seq`, oldest first: what a stream sends next."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > seq)
    return list(session.scalars(query.order_by(Event.seq).limit(limit)))


def seq_of(session: Session, job_id: str, event_id: str) -> int:
    """The number of an event of this job. Raises KeyError when there is none."""
    query = select(Event.seq).where(Event.job_id == job_id, Event.id == event_id)
    seq = session.scalar(query)
    if seq is None:
        raise KeyError(event_id)
    return seq
