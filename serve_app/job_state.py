"""A job's status, and the one function that changes it.

The statuses are those of the wire contract. Whoever changes a job's status asks `transition` first,
inside the transaction that writes it.
"""

from enum import Enum


class JobStatus(str, Enum):
    """Where a job stands. A terminal status never changes again."""

    VALIDATING = "validating_files"  # rows, model and grader are being checked
    QUEUED = "queued"  # waits for room on the cluster
    RUNNING = "running"  # an attempt was launched
    PAUSED = "paused"  # stopped at a committed checkpoint; resume leads back to QUEUED
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True when nothing follows."""
        return self in TERMINAL


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
_S = JobStatus
_ALLOWED: dict[JobStatus, frozenset[JobStatus]] = {
    _S.VALIDATING: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED, _S.PAUSED}),
    # SUCCEEDED and FAILED from QUEUED: the end of an attempt that was launched, but whose launch
    # was not recorded before the manager died.
    _S.QUEUED: frozenset({_S.RUNNING, _S.PAUSED, _S.CANCELLED, _S.FAILED, _S.SUCCEEDED}),
    # QUEUED from RUNNING: an attempt was lost and is retried.
    _S.RUNNING: frozenset({_S.QUEUED, _S.PAUSED, _S.CANCELLED, _S.FAILED, _S.SUCCEEDED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
}


class WrongStateError(Exception):
    """A job cannot do what was asked in the status it has."""

    def __init__(self, status: JobStatus, wanted: str) -> None:
        super().__init__(f"the job is {status.value}, and cannot become {wanted}")
        self.status = status


def transition(current: JobStatus, wanted: JobStatus) -> JobStatus:
    """Return `wanted` when a job that is `current` may become it. Raises WrongStateError.

    To stay is always allowed: a manager that restarts may repeat its last decision.
    """
    if wanted is current or wanted in _ALLOWED.get(current, frozenset()):
        return wanted
    raise WrongStateError(current, wanted.value)
