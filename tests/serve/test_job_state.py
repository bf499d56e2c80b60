"""Which status may follow which: the whole table."""

import itertools

import pytest

from serve_app.job_state import TERMINAL, JobStatus, WrongStateError, transition

S = JobStatus
ALLOWED = {
    (S.VALIDATING, S.QUEUED),
    (S.VALIDATING, S.FAILED),
    (S.VALIDATING, S.CANCELLED),
    (S.VALIDATING, S.PAUSED),
    (S.QUEUED, S.RUNNING),
    (S.QUEUED, S.PAUSED),
    (S.QUEUED, S.CANCELLED),
    (S.QUEUED, S.FAILED),
    (S.QUEUED, S.SUCCEEDED),
    (S.RUNNING, S.QUEUED),
    (S.RUNNING, S.PAUSED),
    (S.RUNNING, S.CANCELLED),
    (S.RUNNING, S.FAILED),
    (S.RUNNING, S.SUCCEEDED),
    (S.PAUSED, S.QUEUED),
    (S.PAUSED, S.CANCELLED),
}


@pytest.mark.parametrize(("current", "wanted"), itertools.product(S, S))
def test_a_status_becomes_another_exactly_where_the_table_says(current, wanted):
    if current is wanted or (current, wanted) in ALLOWED:
        assert transition(current, wanted) is wanted
    else:
        with pytest.raises(WrongStateError, match=f"is {current.value}.*become {wanted.value}"):
            transition(current, wanted)


def test_terminal_is_terminal():
    assert {S.SUCCEEDED, S.FAILED, S.CANCELLED} == TERMINAL
    assert {status for status in S if status.terminal} == TERMINAL
    assert not {current for current, _ in ALLOWED} & TERMINAL
