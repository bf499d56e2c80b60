"""Jobs keep their order and their states, whoever writes at the same time."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from serve.job_rows import events_of, make_job
from serve_app.job_state import JobStatus, WrongStateError
from serve_app.keys import Keyring
from serve_app.store.jobs import (
    checkpoints,
    get_job,
    has_live_attempt,
    list_jobs,
    num_open_jobs,
    open_jobs,
    request_stop,
    set_status,
)
from serve_app.store.tables import Attempt, Job, JobCheckpoint

S = JobStatus


def put(database, job_id: str, status: JobStatus, *, requested=None, attempt=False) -> None:
    """Set a job's state as if it had come there."""
    with database.write() as session:
        job = get_job(session, job_id, lock=True)
        job.status, job.requested = status.value, requested
        if attempt:
            session.add(
                Attempt(
                    job_id=job_id,
                    number=1,
                    submission_id=f"{job_id}-1",
                    status="running",
                    steps_done_at_start=0,
                    created_at=1,
                )
            )


def all_pages(database, project: str | None, limit: int) -> list[str]:
    """Ids of every page, newest first."""
    found, after, more = [], None, True
    while more:
        with database.read() as session:
            jobs, more = list_jobs(session, project, after=after, limit=limit)
        found += [job.id for job in jobs]
        after = found[-1]
    return found


def test_paging_while_jobs_are_created_gives_no_duplicate_and_no_gap(database, project):
    before = [make_job(database, project) for _ in range(120)]
    other = Keyring(database).create_key("second", "laptop")[0].project_id
    done = threading.Event()
    created: list[str] = []

    def create_more() -> None:
        while not done.is_set():
            created.append(make_job(database, project))
            make_job(database, other)

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(create_more) for _ in range(3)]
        try:
            for limit in (7, 20, 50):
                acknowledged = list(created)
                found = all_pages(database, project, limit)
                assert len(found) == len(set(found)), "a job came twice"
                assert [job for job in found if job in set(before)] == before[::-1]
                assert set(acknowledged) <= set(found), "an acknowledged job is missing"
        finally:
            done.set()
        for writer in writers:
            writer.result()
    assert created
    assert set(all_pages(database, project, 33)) == {*before, *created}


def test_a_cursor_that_is_no_job_of_the_project_is_refused(database, project, job_id):
    other = Keyring(database).create_key("second", "laptop")[0].project_id
    with database.read() as session:
        assert get_job(session, job_id, other) is None
        for scope, after in ((other, job_id), (project, "ftjob-none")):
            with pytest.raises(KeyError, match=after):
                list_jobs(session, scope, after=after)
        assert [job.id for job in list_jobs(session, None)[0]] == [job_id]


ODD = [
    "a",
    "a.b",
    'quo"te',
    "it's",
    "$",
    "[0]",
    "a b",
    "ключ",
    "%",
    "back\\slash",
    "?",
    ":x",
    "",
    "1",
]


@pytest.mark.parametrize("key", ODD)
def test_jobs_are_found_by_metadata_with_any_key_and_value(database, project, key):
    values = ["v", "5", "true", "null", '"q"', "it's", "%", "{}", ""]
    ids = {value: make_job(database, project, metadata={key: value}) for value in values}
    make_job(database, project, metadata={"other": "v"})
    make_job(database, project)
    with database.read() as session:
        for value, wanted in ids.items():
            found, more = list_jobs(session, project, metadata={key: value})
            assert ([job.id for job in found], more) == ([wanted], False)
        assert list_jobs(session, project, metadata={key: "v", "other": "v"})[0] == []


def test_each_change_of_status_is_written_with_one_event_and_its_times(database, job_id):
    def change(wanted: JobStatus, **fields) -> Job:
        with database.write() as session:
            job = get_job(session, job_id, lock=True)
            set_status(session, job, wanted, message=f"now {wanted.value}", **fields)
            return job

    assert change(S.QUEUED).started_at is None
    started = change(S.RUNNING).started_at
    assert started is not None
    assert change(S.RUNNING).started_at == started, "to stay is no event"
    put(database, job_id, S.RUNNING, requested="pause")
    assert change(S.PAUSED).requested is None
    change(S.QUEUED)
    assert change(S.RUNNING).started_at == started, "a job starts once"
    error = {"code": "crashed", "message": "m", "param": None}
    failed = change(S.FAILED, error=error)
    assert (failed.error, failed.finished_at is not None) == (error, True)
    with pytest.raises(WrongStateError):
        change(S.RUNNING)
    events = events_of(database, job_id)[1:]
    words = ["queued", "running", "paused", "queued", "running", "failed"]
    assert [event.message for event in events] == [f"now {word}" for word in words]
    assert [event.level for event in events] == ["info"] * 5 + ["error"]


# (status, an attempt is alive, asked before, asked now) -> (status, requested) or None: refused
STOPS = {
    (S.VALIDATING, False, None, "cancel"): (S.CANCELLED, None),
    (S.VALIDATING, False, None, "pause"): (S.PAUSED, None),
    (S.QUEUED, False, None, "cancel"): (S.CANCELLED, None),
    (S.QUEUED, False, None, "pause"): (S.PAUSED, None),
    (S.QUEUED, True, None, "cancel"): (S.QUEUED, "cancel"),  # launched, and not yet recorded
    (S.QUEUED, True, None, "pause"): (S.QUEUED, "pause"),
    (S.RUNNING, True, None, "cancel"): (S.RUNNING, "cancel"),
    (S.RUNNING, True, None, "pause"): (S.RUNNING, "pause"),
    (S.RUNNING, False, None, "cancel"): (S.RUNNING, "cancel"),
    (S.RUNNING, True, "pause", "cancel"): (S.RUNNING, "cancel"),
    (S.RUNNING, True, "pause", "pause"): (S.RUNNING, "pause"),
    (S.RUNNING, True, "cancel", "cancel"): (S.RUNNING, "cancel"),
    (S.RUNNING, True, "cancel", "pause"): None,
    (S.QUEUED, True, "cancel", "pause"): None,
    (S.PAUSED, False, None, "cancel"): (S.CANCELLED, None),
    (S.PAUSED, False, None, "pause"): (S.PAUSED, None),
    (S.CANCELLED, False, None, "cancel"): (S.CANCELLED, None),
    (S.CANCELLED, False, None, "pause"): None,
    (S.SUCCEEDED, False, None, "cancel"): None,
    (S.SUCCEEDED, False, None, "pause"): None,
    (S.FAILED, False, None, "cancel"): None,
    (S.FAILED, False, None, "pause"): None,
}


def test_the_table_of_stops_has_every_status():
    assert {(status, what) for status, _, _, what in STOPS} == set(
        itertools.product(S, ("cancel", "pause"))
    )


@pytest.mark.parametrize(
    "state", STOPS, ids=lambda s: "-".join(str(getattr(x, "value", x)) for x in s)
)
def test_a_stop_in_every_state(database, job_id, state):
    status, attempt, before, what = state
    put(database, job_id, status, requested=before, attempt=attempt)
    num_events = len(events_of(database, job_id))

    def ask() -> None:
        with database.write() as session:
            request_stop(session, get_job(session, job_id, lock=True), what)

    if STOPS[state] is None:
        with pytest.raises(WrongStateError):
            ask()
    else:
        ask()
        ask()  # again changes nothing
    wanted, requested = STOPS[state] or (status, before)
    with database.read() as session:
        job = get_job(session, job_id)
    assert (job.status, job.requested) == (wanted.value, requested)
    changed = (wanted, requested) != (status, before)
    assert len(events_of(database, job_id)) - num_events == int(changed)


def test_a_stop_and_an_end_at_the_same_time_leave_one_of_both(database, project):
    for _ in range(10):
        job_id = make_job(database, project)
        put(database, job_id, S.RUNNING, attempt=True)
        barrier = threading.Barrier(2)

        def stop(job_id=job_id, barrier=barrier) -> None:
            barrier.wait()
            with database.write() as session:
                request_stop(session, get_job(session, job_id, lock=True), "cancel")

        def end(job_id=job_id, barrier=barrier) -> None:
            barrier.wait()
            with database.write() as session:
                job = get_job(session, job_id, lock=True)
                set_status(session, job, S.SUCCEEDED, message="done")

        with ThreadPoolExecutor(2) as pool:
            stopping, ending = pool.submit(stop), pool.submit(end)
            ending.result()
            refused = isinstance(stopping.exception(), WrongStateError)
        with database.read() as session:
            job = get_job(session, job_id)
        assert (job.status, job.requested) == ("succeeded", None)
        seqs = [event.seq for event in events_of(database, job_id)]
        assert seqs == list(range(1, 3 + (not refused)))


def test_open_jobs_are_those_that_have_not_ended(database, project):
    ids = {status: make_job(database, project) for status in S}
    for status, job_id in ids.items():
        put(database, job_id, status)
    other = Keyring(database).create_key("second", "laptop")[0].project_id
    theirs = make_job(database, other)
    expected = [job_id for status, job_id in ids.items() if not status.terminal]
    with database.read() as session:
        assert [job.id for job in open_jobs(session)] == [*expected, theirs]
        assert num_open_jobs(session, project) == len(expected)


def test_an_attempt_is_alive_until_it_has_ended(database, job_id):
    put(database, job_id, S.RUNNING, attempt=True)
    with database.write() as session:
        assert has_live_attempt(session, job_id)
        session.scalars(select(Attempt)).one().ended_at = 2
        assert not has_live_attempt(session, job_id)


def test_checkpoints_are_paged_newest_first_also_after_one_that_was_pruned(
    database, job_id, project
):
    with database.write() as session:
        for step in range(1, 7):
            session.add(
                JobCheckpoint(
                    id=f"ftckpt_{step}",
                    job_id=job_id,
                    step_number=step,
                    stage="srl",
                    stage_step=step,
                    model=f"m{step}",
                    path="p",
                    metrics={},
                    created_at=1,
                    pruned_at=9 if step == 4 else None,
                )
            )
    with database.read() as session:
        page, more = checkpoints(session, job_id, limit=2)
        assert ([c.step_number for c in page], more) == ([6, 5], True)
        page, more = checkpoints(session, job_id, after="ftckpt_4", limit=5)
        assert ([c.step_number for c in page], more) == ([3, 2, 1], False)
        with pytest.raises(KeyError, match="ftckpt_none"):
            checkpoints(session, job_id, after="ftckpt_none")
        with pytest.raises(KeyError, match="ftckpt_1"):
            checkpoints(session, make_job(database, project), after="ftckpt_1")
