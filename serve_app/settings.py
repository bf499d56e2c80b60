"""What one service is made of: where it keeps things, and its limits. No ray, no torch."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

from rollout.verifiers.hosts import HOSTS_VARIABLE
from train.registration import MANAGER_NAME, NAMESPACE

__all__ = ["MANAGER_NAME", "NAMESPACE", "TASKS_FOLDER", "Settings", "shipped_models"]
TASKS_FOLDER = "tasks"  # in the data folder: files of calls beside jobs
_SHIPPED_MODELS = Path(__file__).resolve().parents[1] / "models"


def shipped_models() -> dict[str, str]:
    """Models that stand beside the source code, by name."""
    return {
        folder.name: str(folder)
        for folder in sorted(_SHIPPED_MODELS.glob("*"))
        if (folder / "config.json").is_file()
    }


class Settings(BaseModel):
    """Arguments of `serve_app.app:build`. Every node sees `data` as the same path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path  # database, files and jobs live in it
    store: str | None = None  # SQLAlchemy URL; None: SQLite at data/ferrata.db
    files: str | None = None  # fsspec URL of uploaded files; None: data/files
    models: dict[str, str] = Field(default_factory=shipped_models)  # name -> folder
    catalogue: Path | None = None  # what is known of models: licence, latency (docs/selection.md)
    allow_hub_models: bool = True  # a `model` that is not in `models` is looked up on the hub
    organization: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "ferrata"
    # Jobs sent by `ray job submit` to the same cluster are this project's, when it exists.
    submitted_jobs_project: str = "default"
    num_api_replicas: PositiveInt = 1
    max_running_jobs: PositiveInt = 4  # on the cluster, over all projects; the rest is queued
    max_running_jobs_per_project: PositiveInt = 2
    max_open_jobs_per_project: PositiveInt = 100  # not ended; above: 429
    max_attempts: PositiveInt = 5  # of one job, over crashes of its driver
    stop_grace_s: PositiveFloat = 600.0  # a cancelled or paused job may take so long to commit
    requests_per_minute: PositiveInt = 600  # of one key
    max_concurrent_requests: PositiveInt = 64  # of one key
    max_file_bytes: PositiveInt = 512 * 2**20
    # Graders call public addresses; private ones (names, addresses, networks) only if listed here.
    grader_hosts: tuple[str, ...] = ()
    max_chat_engines: NonNegativeInt = 1  # 0: this service serves no models
    chat_idle_s: PositiveFloat = 300.0  # an engine without requests for so long gives its room back

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.store or f"sqlite:///{self.data / 'ferrata.db'}"

    @property
    def files_url(self) -> str:
        """fsspec URL of the folder of uploaded files."""
        return self.files or f"file://{self.data / 'files'}"

    @property
    def grader_environment(self) -> dict[str, str]:
        """Variables for every process in which this service's graders run."""
        return {HOSTS_VARIABLE: ",".join(self.grader_hosts)}

    def job_folder(self, job_id: str) -> Path:
        """Everything of one job: its data, specification, checkpoints, events and report."""
        return self.data / "jobs" / job_id
