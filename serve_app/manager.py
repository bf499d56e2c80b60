"""The job manager's actor: one per cluster, detached, started again when it dies.

Only wiring stands here: `JobManager` in a loop, with Ray, the store, the files and the secrets
behind it. The replicas of the API call `ensure_manager` and then speak through `RayManagerLink`.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from serve_app.job_manager import ADMISSION, STRAYS, JobManager
from serve_app.preparation import Preparation, prepare_job
from serve_app.ray_jobs import RayJobsClient
from serve_app.settings import MANAGER_NAME, NAMESPACE, TASKS_FOLDER, Settings
from serve_app.store.database import Database
from serve_app.store.jobs import get_job
from train import secrets

POLL_INTERVAL_S = 1.0
STALE_AFTER_S = 60.0  # a pass that takes longer is told as trouble
PREPARE_DEADLINE_S = 3600.0
CALL_DEADLINE_S = 5.0  # of the API's questions to the manager
REPLACE_DEADLINE_S, REPLACE_PAUSE_S = 30.0, 0.2
MAX_CALLS = 16  # at a time; the loop has a thread of its own
_log = logging.getLogger(__name__)


class ManagerActor:
    """Runs passes one after another: when nudged, and at least each POLL_INTERVAL_S."""

    def __init__(self, settings: Settings) -> None:
        from serve_app.files import FileStorage
        from serve_app.janitor import Janitor, sweeps_of
        from serve_app.store.migrate import migrate

        logging.basicConfig(level=logging.INFO)
        self._settings = settings
        database = Database(settings.store_url)
        migrate(database)
        files = FileStorage(settings, database)
        self._janitor = Janitor(sweeps_of(files, database, settings.data / TASKS_FOLDER))
        self._manager = JobManager(
            settings,
            database,
            RayJobsClient(),
            lambda job_id: prepare_on_ray(settings, job_id),
            cluster_resources,
            files=files,
            secrets_of=lambda project_id: project_secrets(settings, database, project_id),
        )
        self._wake = threading.Event()
        self._ended_at = time.monotonic()  # of the last pass
        self._error: str | None = None  # of the last pass as a whole
        self._thread = threading.Thread(target=self._loop, name="passes", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Begin the next pass now: a row has changed."""
        self._wake.set()

    def settings(self) -> dict[str, Any]:
        """What it was started with, as JSON values."""
        return self._settings.model_dump(mode="json")

    def pid(self) -> int:
        """Its process on its node."""
        return os.getpid()

    def register_external(
        self, submission_id: str, out: str, spec: dict[str, Any], steps_planned: int
    ) -> None:
        """Enter a job that was sent by `ray job submit`; called by its driver."""
        self._manager.register_external(submission_id, out, spec, steps_planned)
        self.nudge()

    def errors(self) -> dict[str, str]:
        """What failed in the last pass, by job: for the operator."""
        return dict(self._manager.errors)

    def health(self) -> dict[str, Any]:
        """{"ok", "detail", "last_pass_age_s"} of the last pass."""
        age_s = time.monotonic() - self._ended_at
        trouble = self._error
        if not self._thread.is_alive():
            trouble = "the manager's loop has ended"
        elif age_s > STALE_AFTER_S:
            trouble = f"the manager's last pass ended {age_s:.0f} s ago"
        ok, detail = told_of(trouble, self.errors())
        return {"ok": ok, "detail": detail, "last_pass_age_s": round(age_s, 3)}

    def _loop(self) -> None:
        while True:
            self._wake.wait(POLL_INTERVAL_S)
            self._wake.clear()
            try:
                self._manager.step()
                self._error = None
            # Acceptable: the store may come back; until then health says what is wrong.
            except Exception as error:
                if self._error is None:
                    _log.exception("a pass failed; the next ones are tried")
                self._error = f"the last pass failed: {type(error).__name__}"
            self._ended_at = time.monotonic()


def told_of(trouble: str | None, errors: Mapping[str, str]) -> tuple[bool, str]:
    """(whether the manager works, what anybody may be told of it): no error's own words.

    Those could hold a job's rows, or the store's address. One job's trouble is not the service's.
    """
    general = [what for what in errors if what in (ADMISSION, STRAYS)]
    told = [trouble] if trouble else [f"{what}: in trouble" for what in general]
    if len(errors) > len(general):
        told.append(f"{len(errors) - len(general)} jobs have trouble")
    if told:
        told.append("see the manager's log")
    return trouble is None and not general, "; ".join(told) or "jobs are looked after"


class RayManagerLink:
    """The manager, as the API's replicas reach it (`serve_app.context.ManagerLink`)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._actor: Any = None

    def nudge(self) -> None:
        """Say that a row changed. Never raises: the manager looks by itself each second."""
        try:
            self._reach().nudge.remote()
        # Acceptable: a nudge only saves waiting; whether the manager lives, `health` says.
        except Exception as error:
            self._actor = None
            _log.warning("the job manager was not nudged: %s", error)

    def health(self) -> Mapping[str, Any]:
        """What the manager says of itself, or why it could not be asked. Never raises."""
        import ray

        try:
            return ray.get(self._reach().health.remote(), timeout=CALL_DEADLINE_S)
        # Acceptable: that is the answer.
        except Exception as error:
            self._actor = None  # made again at the next question, if it is gone
            _log.warning("the job manager does not answer: %s", error)
            reason = type(error).__name__
            return {"ok": False, "detail": f"the job manager does not answer: {reason}"}

    def _reach(self) -> Any:
        if self._actor is None:
            self._actor = ensure_manager(self._settings)
        return self._actor


def ensure_manager(settings: Settings) -> Any:
    """Return the cluster's manager; start it when there is none, or one with other settings."""
    import ray

    deadline = time.monotonic() + REPLACE_DEADLINE_S
    while True:
        actor = _get_or_start(settings)
        try:
            found = ray.get(actor.settings.remote(), timeout=CALL_DEADLINE_S)
        except ray.exceptions.GetTimeoutError:  # pyright: ignore[reportAttributeAccessIssue]
            return actor  # it is being started; the next replica looks at its settings
        except ray.exceptions.ActorDiedError:  # pyright: ignore[reportAttributeAccessIssue]
            if time.monotonic() > deadline:  # the name is kept a moment longer than the actor
                raise
            time.sleep(REPLACE_PAUSE_S)
            continue
        if found == settings.model_dump(mode="json"):
            return actor
        _log.info("the service's settings have changed: the job manager is started again")
        ray.kill(actor)


def _get_or_start(settings: Settings) -> Any:
    import ray

    remote = ray.remote(ManagerActor).options(
        name=MANAGER_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=0,
        max_concurrency=MAX_CALLS,
    )
    return remote.remote(settings)


def cluster_resources() -> dict[str, float]:
    """The cluster's total resources by name."""
    import ray

    return dict(ray.cluster_resources())


def prepare_on_ray(settings: Settings, job_id: str) -> Preparation:
    """Prepare a job in a worker of its own: it loads tokenizers, and runs the user's references."""
    import ray

    # max_calls: the worker ends with the task, and with it the secrets in its environment.
    task = ray.remote(num_cpus=0, max_calls=1)(_prepare_in_worker).options(
        name=f"prepare:{job_id}",
        runtime_env={"env_vars": settings.grader_environment},
    )
    call = task.remote(settings, job_id, cluster_resources())
    try:
        return ray.get(call, timeout=PREPARE_DEADLINE_S)
    except ray.exceptions.RayTaskError as error:  # pyright: ignore[reportAttributeAccessIssue]
        raise error.cause from None  # its own text is a trace through this machine
    except ray.exceptions.GetTimeoutError:  # pyright: ignore[reportAttributeAccessIssue]
        ray.cancel(call, force=True)
        raise TimeoutError(
            f"waited {PREPARE_DEADLINE_S:.0f} s for the rows of {job_id} to be checked; are the "
            "model's files and the service's storage within reach of the cluster's nodes?"
        ) from None


def _prepare_in_worker(
    settings: Settings, job_id: str, cluster: Mapping[str, float]
) -> Preparation:
    """Prepare with the owner's secrets in this process, which ends afterwards."""
    database = Database(settings.store_url)
    with database.read() as session:
        job = get_job(session, job_id)
    if job is not None and job.project_id is not None:
        secrets.give(project_secrets(settings, database, job.project_id))
    database.close()
    return prepare_job(settings, job_id, cluster)


def project_secrets(settings: Settings, database: Database, project_id: str) -> dict[str, str]:
    """A project's secrets by name."""
    from serve_app.secrets import SecretBox

    box = SecretBox(settings, database)
    found = {name: box.get(project_id, name) for name in box.names(project_id)}
    return {name: value for name, value in found.items() if value is not None}
