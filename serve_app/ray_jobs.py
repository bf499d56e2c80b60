"""Ray's jobs as the manager needs them: submit, look, stop. What a job means stands elsewhere."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

RayStatus = Literal["pending", "running", "succeeded", "failed", "stopped", "unknown"]
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "stopped"})
# Names of Ray itself, for the one thing that its client cannot do: end a driver that ignores stop.
_SUPERVISOR = "_ray_internal_job_actor_{submission_id}"
_SUPERVISOR_NAMESPACE = "SUPERVISOR_ACTOR_RAY_NAMESPACE"
_NOT_FOUND = "failed with status code 404"
CALL_DEADLINE_S = 30.0
MAX_CALLS = 8  # at a time, those left behind included


class RayUnavailableError(RuntimeError):
    """The cluster did not answer, so nothing is known about its jobs."""


@dataclass(frozen=True, slots=True)
class RayJob:
    """What Ray knows of a submission. "unknown": this cluster never heard of it."""

    submission_id: str
    status: RayStatus
    exit_code: int | None = None  # of the driver; None: not ended, or ended with its node
    message: str = ""  # after a failure the end of the driver's log
    metadata: dict[str, str] | None = None

    @property
    def ended(self) -> bool:
        """True when its driver is gone for good."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Submission:
    """What Ray is asked to run."""

    submission_id: str
    entrypoint: str  # a shell command
    runtime_env: dict[str, Any]  # the dashboard shows it: no secret stands in it
    metadata: dict[str, str]


class RayJobs(Protocol):
    """Every call raises RayUnavailableError when the cluster does not answer."""

    def submit(self, submission: Submission) -> None:
        """Start it; changes nothing when Ray knows the submission id already."""
        ...

    def status(self, submission_id: str) -> RayJob:
        """What became of it."""
        ...

    def stop(self, submission_id: str) -> None:
        """Ask the driver to end; Ray kills it after RAY_JOB_STOP_WAIT_TIME_S."""
        ...

    def kill(self, submission_id: str) -> None:
        """End the driver at once, when `stop` has not."""
        ...

    def submissions(self) -> list[RayJob]:
        """Every submission that Ray remembers, ended ones too."""
        ...


class _UnknownJobError(Exception):
    """Ray never heard of the submission id."""


class RayJobsClient:
    """RayJobs through the cluster's own HTTP interface."""

    def __init__(self, address: str | None = None) -> None:
        """`address` None: the cluster that this process is connected to."""
        self._address = address
        self._client: Any = None
        # Ray's client has no deadline of its own: a call that hangs is left behind in its thread.
        self._threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="ray-jobs")

    def submit(self, submission: Submission) -> None:
        """Start it, unless Ray knows it already: a duplicate is answered with a server error."""
        try:
            self._call(
                "submit_job",
                submission_id=submission.submission_id,
                entrypoint=submission.entrypoint,
                runtime_env=submission.runtime_env,
                metadata=submission.metadata,
            )
        except RayUnavailableError:
            if self.status(submission.submission_id).status == "unknown":
                raise

    def status(self, submission_id: str) -> RayJob:
        """What became of it."""
        try:
            return _record(self._call("get_job_info", submission_id))
        except _UnknownJobError:
            return RayJob(submission_id, "unknown")

    def stop(self, submission_id: str) -> None:
        """Ask the driver to end. One that is not there has nothing to end."""
        with suppress(_UnknownJobError):
            self._call("stop_job", submission_id)

    def kill(self, submission_id: str) -> None:
        """End the driver's supervisor, and with it its child process: a driver begun by `exec`."""
        import ray

        name = _SUPERVISOR.format(submission_id=submission_id)
        with suppress(ValueError):  # Ray's answer when it has ended in the meantime
            ray.kill(ray.get_actor(name, namespace=_SUPERVISOR_NAMESPACE))

    def submissions(self) -> list[RayJob]:
        """Every submission; drivers that were not submitted are left out."""
        return [_record(job) for job in self._call("list_jobs") if job.submission_id]

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        from ray.exceptions import RayError

        try:
            call = self._threads.submit(self._ask, method, *args, **kwargs)
            return call.result(timeout=CALL_DEADLINE_S)
        except FutureTimeoutError:
            raise RayUnavailableError(
                f"waited {CALL_DEADLINE_S:.0f} s for `{method}` of Ray's job interface; is the "
                "dashboard's process on the head node alive?"
            ) from None
        except (OSError, ValueError, RuntimeError, RayError) as error:
            if _NOT_FOUND in str(error):
                raise _UnknownJobError from None
            self._client = None  # the dashboard may come back at another address
            raise RayUnavailableError(f"Ray's job interface: `{method}` failed: {error}") from error

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._client is None:
            self._client = self._connect()
        return getattr(self._client, method)(*args, **kwargs)

    def _connect(self) -> Any:
        import ray
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self._address or ray.get_runtime_context().gcs_address)


def _record(details: Any) -> RayJob:
    """Ray's own record as ours."""
    return RayJob(
        submission_id=details.submission_id,
        status=details.status.value.lower(),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        metadata=details.metadata or {},
    )
