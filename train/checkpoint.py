"""Checkpoints: a folder is one only when its manifest says so.

Everything is written into a hidden folder, flushed, hashed into `manifest.json` (written last),
and then renamed into place. A kill at any moment leaves either the whole checkpoint or a hidden
folder that the next commit removes. Readers trust the manifest and nothing else.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
NOT_MODEL = ("optimizer.safetensors", MANIFEST)  # what is a checkpoint's, but not its model's
HASH_CHUNK_BYTES = 2**20
_PREFIX, _HIDDEN = "step-", ".writing-"


class CheckpointError(RuntimeError):
    """A checkpoint whose files disagree with its manifest."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint."""

    path: Path
    step: int  # optimizer batches taken in its stage
    state: dict[str, Any]  # what the loop needs to go on: collector, policy version, best score


def commit(
    folder: Path, step: int, state: dict[str, Any], write: Callable[[Path], None]
) -> Checkpoint:
    """Write `folder/step-NNNNNN` by `write(target)` and make it a checkpoint.

    An earlier checkpoint of the same step is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    hidden, final = folder / f"{_HIDDEN}{step:06d}", step_folder(folder, step)
    hidden.mkdir()
    write(hidden)
    files = {str(p.relative_to(hidden)): p for p in sorted(hidden.rglob("*")) if p.is_file()}
    for path in hidden.rglob("*"):  # folders too: they hold the names
        _flush(path)
    manifest = {
        "version": MANIFEST_VERSION,
        "step": step,
        "state": state,
        "files": {
            name: {"sha256": sha256(path), "bytes": path.stat().st_size}
            for name, path in files.items()
        },
    }
    write_json(hidden / MANIFEST, manifest)
    if final.exists():
        # A kill here leaves a folder without this step, or a damaged one that readers pass over.
        (final / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(final)
    hidden.rename(final)
    _flush(folder)
    return Checkpoint(final, step, state)


def load(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises CheckpointError when a file differs from the manifest."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        found = Checkpoint(path, manifest["step"], manifest["state"])
        files = {n: (e["bytes"], e["sha256"]) for n, e in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} has no readable {MANIFEST}: {error!r}") from None
    for name, (num_bytes, digest) in files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != num_bytes:
            raise CheckpointError(f"{file} is missing or not {num_bytes} bytes long")
        if sha256(file) != digest:
            raise CheckpointError(f"{file} does not match its sha256 in {MANIFEST}")
    return found


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole; None when there are none at all.

    Damaged ones are passed over. Raises CheckpointError when all are damaged: to start anew would
    remove what might be repaired.
    """
    damaged: list[CheckpointError] = []
    for path in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        try:
            return load(path)
        except CheckpointError as error:
            # Acceptable: an older whole checkpoint continues the same run, only from further back.
            if (path / MANIFEST).exists():  # without one it never was a checkpoint, or is pruned
                damaged.append(error)
    if damaged:
        raise CheckpointError(f"{damaged[0]}; mend or remove {folder} to start the stage anew")
    return None


def prune(folder: Path, keep: set[int]) -> list[int]:
    """Remove the checkpoints whose step is not in `keep`; return the steps that are left."""
    for step in steps(folder):
        if step not in keep:
            # The manifest goes first, so that a kill half-way leaves no checkpoint.
            path = step_folder(folder, step)
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path)
    return steps(folder)


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint's folder, whole or not."""
    return sorted(int(path.name.removeprefix(_PREFIX)) for path in folder.glob(f"{_PREFIX}*"))


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands, when there is one."""
    return folder / f"{_PREFIX}{step:06d}"


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed commit left."""
    for path in folder.glob(f"{_HIDDEN}*"):
        shutil.rmtree(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    _flush(hidden)
    hidden.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
