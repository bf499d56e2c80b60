"""What a started service leaves in its data folder: how to reach it and how to stop it.

`service.json` says what runs, `settings.json` what it was started with, `operator.key` holds the
key of the command line, `ray.token` the token of the Ray cluster. All are readable by their owner
alone. The command line and `serve_app.cluster` use this module; it imports nothing heavy.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.settings import Settings, shipped_models
from train.field_names import describe_field

RECORD, SETTINGS = "service.json", "settings.json"
OPERATOR_KEY, RAY_TOKEN = "operator.key", "ray.token"


class ClusterError(RuntimeError):
    """A service could not be started or stopped; the message says why and what to do."""


class ProcessId(BaseModel):
    """A process that cannot be mistaken for a later one with the same number."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: float  # Unix seconds, as the system counts them


class Record(BaseModel):
    """One service, as `up` left it. Written before anything is started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["starting", "running", "stopped"]
    mark: str  # stands in the environment of every process of this service's own cluster
    host: str
    port: int
    address: str | None = None  # of the Ray cluster, host:port; None until it is known
    num_cpus: float | None = None  # of the own cluster; None: as many as the machine has
    joined: bool = False  # the cluster was there before, and stays
    deployed: bool = False  # the application was handed to Ray Serve
    started_serve: bool = False  # Ray Serve did not run in the joined cluster before
    dashboard: str | None = None  # URL of Ray's dashboard
    ray_folder: str | None = None  # temporary folder of the own cluster
    head: ProcessId | None = None
    core: list[ProcessId] = Field(default_factory=list)  # without one of these the cluster ends
    processes: list[ProcessId] = Field(default_factory=list)  # all of the own cluster

    @property
    def base_url(self) -> str:
        """What clients are given: ends in /v1."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        """Where the service answers, for a client on the same machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; only its owner may read it, from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_record(data: Path) -> Record | None:
    """The newest record of this data folder; None when no service was ever started on it.

    Raises ClusterError when it cannot be read.
    """
    path = data / RECORD
    if not path.exists():
        return None
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        lines = "; ".join(describe_field(item, Record) for item in error.errors())
        raise ClusterError(f"{path} is not what `ferrata up` wrote: {lines}") from None


def write_record(data: Path, record: Record) -> Record:
    """Make `record` the newest one."""
    write_private(data / RECORD, record.model_dump_json(indent=2) + "\n")
    return record


def read_settings(data: Path) -> Settings:
    """The settings that the last `up` on this folder used, or the defaults."""
    path = data / SETTINGS
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "models" in kept:
        kept["models"] = shipped_models() | kept["models"]
    return Settings.model_validate(kept | {"data": data})


def write_settings(settings: Settings) -> None:
    """Keep the settings for the next `up` and for commands that open the store themselves.

    Only what differs from the defaults: those may be others in a later version, and the shipped
    models may lie elsewhere.
    """
    kept = settings.model_dump(mode="json", exclude={"data", "models"}, exclude_defaults=True)
    shipped = shipped_models()
    if added := {k: v for k, v in settings.models.items() if shipped.get(k) != v}:
        kept["models"] = added
    write_private(settings.data / SETTINGS, json.dumps(kept, indent=2) + "\n")


def read_operator_key(data: Path) -> str | None:
    """The command line's own key; None when there is none."""
    path = data / OPERATOR_KEY
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def ray_token_file(data: Path) -> Path:
    """The file with the token of this service's own cluster, made when missing."""
    path = data / RAY_TOKEN
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path
