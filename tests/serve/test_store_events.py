"""A job's events have numbers without a gap, whoever writes at the same time."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from serve.job_rows import events_of, make_job
from serve_app.store.events import add_event, events_since, list_events, seq_of
from serve_app.store.jobs import get_job

NUM_WRITERS, NUM_EACH = 8, 25
WRITER = """
import sys
from serve_app.store.database import Database
from serve_app.store.events import add_event
from serve_app.store.jobs import get_job
url, job_id, name, count = sys.argv[1:]
database = Database(url)
database.ping()
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(count)):
    with database.write() as session:
        job = get_job(session, job_id, lock=True)
        add_event(session, job, message=f"{name}:{number}", key=f"{name}:{number}")
"""


def test_events_of_eight_threads_have_numbers_without_gap(database, job_id):
    barrier = threading.Barrier(NUM_WRITERS)

    def write(name: int) -> None:
        barrier.wait()
        for number in range(NUM_EACH):
            with database.write() as session:
                job = get_job(session, job_id, lock=True)
                add_event(session, job, message=f"{name}:{number}")

    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        list(pool.map(write, range(NUM_WRITERS)))
    check_events(database, job_id)


def test_events_of_eight_processes_have_numbers_without_gap(database, job_id, store_url):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, store_url, job_id, str(name), str(NUM_EACH)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in range(NUM_WRITERS)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0] * NUM_WRITERS
    check_events(database, job_id)


def check_events(database, job_id: str) -> None:
    """Every writer's events are there, in its order, numbered from 1 without a gap."""
    events = events_of(database, job_id)
    assert [event.seq for event in events] == list(range(1, NUM_WRITERS * NUM_EACH + 2))
    for name in range(NUM_WRITERS):
        mine = [e.message for e in events if e.message.startswith(f"{name}:")]
        assert mine == [f"{name}:{number}" for number in range(NUM_EACH)]
    with database.read() as session:
        assert get_job(session, job_id).next_event_seq == len(events) + 1


def test_a_transaction_that_fails_leaves_no_gap(database, job_id):
    with pytest.raises(ZeroDivisionError), database.write() as session:
        add_event(session, get_job(session, job_id, lock=True), message="lost")
        raise ZeroDivisionError
    with database.write() as session:
        add_event(session, get_job(session, job_id, lock=True), message="kept")
    events = events_of(database, job_id)
    assert [(e.seq, e.message) for e in events][1:] == [(2, "kept")]


def test_an_event_with_an_earlier_ones_key_takes_its_place(database, job_id):
    def step(message: str, **fields) -> bool:
        with database.write() as session:
            job = get_job(session, job_id, lock=True)
            return add_event(session, job, message=message, key="srl:1:metrics", **fields)

    assert step("first", type="metrics", data={"reward": 0.1}) is True
    with database.write() as session:
        add_event(session, get_job(session, job_id, lock=True), message="between")
    before = events_of(database, job_id)
    again = {"type": "metrics", "data": {"reward": 0.2}, "level": "warn", "created_at": 7}
    assert step("again", **again) is False
    after = events_of(database, job_id)
    assert [e.id for e in after] == [e.id for e in before]
    replaced = after[1]
    assert (replaced.seq, replaced.message, replaced.level) == (2, "again", "warn")
    assert replaced.data == {"reward": 0.2}


def test_a_lock_reads_what_others_wrote_since_the_row_was_first_read(database, job_id):
    with database.write() as session:
        stale = get_job(session, job_id)
        assert stale.next_event_seq == 2
        if not database.is_sqlite:  # there no other writer could come in between
            with database.write() as other:
                add_event(other, get_job(other, job_id, lock=True), message="other")
        locked = get_job(session, job_id, lock=True)
        add_event(session, locked, message="mine")
    seqs = [event.seq for event in events_of(database, job_id)]
    assert seqs == list(range(1, len(seqs) + 1))


def test_events_are_paged_newest_first_and_followed_oldest_first(database, job_id, project):
    with database.write() as session:
        job = get_job(session, job_id, lock=True)
        for number in range(2, 8):
            add_event(session, job, message=str(number))
    other = make_job(database, project)
    with database.read() as session:
        page, more = list_events(session, job_id, limit=4)
        assert ([e.seq for e in page], more) == ([7, 6, 5, 4], True)
        rest, more = list_events(session, job_id, after=page[-1].id, limit=4)
        assert ([e.seq for e in rest], more) == ([3, 2, 1], False)
        assert [e.seq for e in events_since(session, job_id, 5)] == [6, 7]
        assert seq_of(session, job_id, page[0].id) == 7
        for wrong in ("ftevent-none", events_since(session, other, 0)[0].id):
            with pytest.raises(KeyError, match=wrong):
                list_events(session, job_id, after=wrong)
