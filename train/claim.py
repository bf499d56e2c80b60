"""Whose folder is this? One job per `--out`, one process at a time.

A job that is run again must be the same job: the same specification, the same rows and the same
model. Otherwise checkpoints of one would silently continue as the other.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from train import checkpoint
from train.spec import JobSpec, SpecError
from train.spec_file import spec_to_json

JOB_FILE, LOCK_FILE = "job.json", ".lock"
BUSY_EXIT_CODE = 75  # of `python -m train`: EX_TEMPFAIL, the same command may work later
# What decides a model's function; a hub name has none of these here and is trusted as a name.
MODEL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")
# How a job is run, not what it computes: these may change from one run of it to the next.
OPERATION = {
    "learner": ("cpus_per_worker", "gpus_per_worker", "max_failures"),
    "rollout": (
        "num_verifiers",
        "cpus_per_engine",
        "gpus_per_engine",
        "cpus_per_verifier",
        "kv_cache_gib",
        "start_deadline_s",
        "generate_deadline_s",
        "verdict_deadline_s",
    ),
}

# Of a teacher between the stages: how it is asked, not what it writes.
TEACHER_OPERATION = (
    "concurrency",
    "limits",
    "price",
    "num_engines",
    "cpus_per_engine",
    "gpus_per_engine",
    "num_threads",
    "kv_cache_gib",
    "start_deadline_s",
    "draft_deadline_s",
)


class FolderBusyError(SpecError):
    """Another process runs in the folder."""


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold `out` for this process; the lock ends with the process, however it ends.

    Raises FolderBusyError.
    """
    with (out / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderBusyError(
                f"{out}: another process is running a job in this folder; wait for it, stop it, or "
                "choose another --out"
            ) from None
        yield


def claim(spec: JobSpec, out: Path) -> None:
    """Write down which job `out` holds, or check that it is this one. Raises SpecError."""
    path, wanted = out / JOB_FILE, identity(spec)
    if not path.exists():
        checkpoint.write_json(path, wanted)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    differing = sorted(differences(found, wanted))
    if differing:
        raise SpecError(
            f"{out} holds another job, which differs in {', '.join(differing)}: choose another "
            "--out, or remove the folder"
        )


def identity(spec: JobSpec) -> dict[str, Any]:
    """What the job computes: its specification, with a sha256 in the place of every local path.

    A working directory that was unpacked elsewhere holds the same job.
    """
    files = {f"data.{name}": path for name, path in spec.data if path is not None}
    model = Path(spec.model)
    if model.is_dir():
        files |= model_files(model, "model")
    described = spec_to_json(spec)
    del described["data"]
    if (more := spec.more_examples) is not None:
        files |= {f"more_examples.documents.{k}": path for k, path in enumerate(more.documents)}
        del described["more_examples"]["documents"]
        teacher = Path(described["more_examples"].pop("teacher_model") or "")
        if more.teacher_model is not None and teacher.is_dir():
            files |= model_files(teacher, "more_examples.teacher")
        for name in TEACHER_OPERATION:
            (described["more_examples"]["teacher"] or {}).pop(name, None)
    if model.is_dir():
        del described["model"]
    for section, fields in OPERATION.items():
        for name in fields:
            del described[section][name]
    return {
        "spec": described,
        "sha256": {name: checkpoint.sha256(path) for name, path in files.items()},
    }


def model_files(folder: Path, name: str) -> dict[str, Path]:
    """The files that decide the function of the model in a folder."""
    found = sorted(path for pattern in MODEL_FILES for path in folder.glob(pattern))
    return {f"{name}/{path.name}": path for path in found}


def differences(found: Any, wanted: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of what differs; groups of fields are looked into."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        if found != wanted:
            yield prefix
        return
    for key in found.keys() | wanted.keys():
        yield from differences(found.get(key), wanted.get(key), f"{prefix}.{key}".lstrip("."))
