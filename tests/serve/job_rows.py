"""What the tests of jobs and events share."""

from serve_app.store.events import events_since
from serve_app.store.jobs import create_job, new_job
from serve_app.store.tables import Event


def make_job(database, project: str, **fields) -> str:
    """Write a job; returns its id."""
    job = new_job(project_id=project, request={}, out="/out", model="tiny", seed=1, **fields)
    with database.write() as session:
        create_job(session, job)
    return job.id


def events_of(database, job_id: str) -> list[Event]:
    """All events, oldest first."""
    with database.read() as session:
        return events_since(session, job_id, 0, limit=10_000)
