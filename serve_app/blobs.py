"""Bytes in a folder or any fsspec URL: streamed, whole or not there at all, checksummed.

Names are ids. What is being written stands beside them as `<id>.partial` and takes its name when
it is complete. Which blobs belong to something is for `serve_app.files` to know.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

CHUNK_BYTES = 2**20
_PARTIAL = ".partial"


class TooManyBytesError(Exception):
    """More bytes came than were allowed."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    num_bytes: int
    sha256: str  # hexadecimal


class BlobFolder:
    """One folder. Threads and processes may share it."""

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)
        self._fs.makedirs(self._root, exist_ok=True)

    def write(self, name: str, chunks: Iterable[bytes], max_bytes: int) -> Written:
        """Write a blob; when this returns it is durable. Raises TooManyBytesError.

        When it fails, or `chunks` does, nothing is left.
        """
        partial = self._path(name + _PARTIAL)
        try:
            written = self._stream(partial, chunks, max_bytes)
            self._fs.mv(partial, self._path(name))
        except BaseException:
            self._remove(partial)
            raise
        if self._is_local:
            _sync_folder(self._root)
        return written

    def _stream(self, path: str, chunks: Iterable[bytes], max_bytes: int) -> Written:
        digest, num_bytes = hashlib.sha256(), 0
        with self._fs.open(path, "wb") as file:
            for chunk in chunks:
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise TooManyBytesError
                digest.update(chunk)
                file.write(chunk)
            if self._is_local:  # other stores are durable once the file is closed
                file.flush()
                os.fsync(file.fileno())
        return Written(num_bytes, digest.hexdigest())

    def open(self, name: str) -> BinaryIO:
        """Open a blob for reading. Raises FileNotFoundError."""
        return cast(BinaryIO, self._fs.open(self._path(name), "rb"))

    def delete(self, name: str) -> None:
        """Remove a blob, when it is there."""
        self._remove(self._path(name))

    def idle(self, idle_s: float) -> tuple[list[str], list[str]]:
        """(complete, partial) names of blobs that were not written to for so long."""
        self._fs.invalidate_cache()
        before = time.time() - idle_s
        complete, partial = [], []
        for path in self._fs.ls(self._root, detail=False):
            try:
                if self._fs.modified(path).timestamp() > before:
                    continue
            except FileNotFoundError:  # it took its name, or was removed, in the meantime
                continue
            name = path.rsplit("/", 1)[-1]
            (partial if name.endswith(_PARTIAL) else complete).append(name)
        return complete, partial

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(path)


def read_chunks(file: BinaryIO) -> Iterator[bytes]:
    """The rest of an open file, piece by piece."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
