"""Files that clients upload and jobs produce: bytes in a `BlobFolder`, one row each in the store.

The row is written last, so a file that a client was told of has all its bytes, and a crash leaves
at most bytes without a row, which `sweep` removes.
"""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from sqlalchemy.orm import Session

from serve_app.blobs import BlobFolder, TooManyBytesError, read_chunks
from serve_app.errors import bad_request, too_large
from serve_app.ids import new_id
from serve_app.settings import Settings
from serve_app.store import files as rows
from serve_app.store.database import Database
from serve_app.store.tables import StoredFile

log = logging.getLogger(__name__)
IDLE_S = 3600.0  # bytes without a row that nobody wrote to for so long are left from a crash


class FileUnavailableError(Exception):
    """A file's bytes are gone, or are not those that were stored."""


class FileStorage:
    """The files of every project."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.blobs = BlobFolder(settings.files_url)
        self._database = database
        self._max_bytes = settings.max_file_bytes

    def save(
        self,
        project_id: str,
        filename: str,
        purpose: str,
        chunks: Iterable[bytes] | BinaryIO,
        *,
        expires_after_s: int | None = None,
        also: Callable[[Session, StoredFile], None] | None = None,
    ) -> StoredFile:
        """Store a file. When this returns, its bytes and its row are durable.

        `chunks` are bytes in pieces, or a file open for reading; never whole in memory. `also`
        joins the row's transaction: when it raises, there is no file. Raises ApiError 413 above
        `max_file_bytes`, 400 for an empty file.
        """
        file_id = new_id("file-")
        if hasattr(chunks, "read"):
            chunks = read_chunks(cast(BinaryIO, chunks))
        try:
            written = self.blobs.write(file_id, chunks, self._max_bytes)
        except TooManyBytesError:
            raise self.too_large(filename) from None
        try:
            if written.num_bytes == 0:
                raise bad_request(f"{filename} is empty: there are no rows in it", param="file")
            now = int(time.time())
            file = StoredFile(
                id=file_id,
                project_id=project_id,
                filename=filename,
                purpose=purpose,
                num_bytes=written.num_bytes,
                sha256=written.sha256,
                created_at=now,
                expires_at=None if expires_after_s is None else now + expires_after_s,
            )
            with self._database.write() as session:
                session.add(file)
                session.flush()
                if also is not None:
                    also(session, file)
        except BaseException:
            self.blobs.delete(file_id)
            raise
        return file

    def too_large(self, filename: str) -> Exception:
        """The error for a file above this service's limit."""
        return too_large(
            f"{filename} is larger than {self._max_bytes} bytes, the most that this service takes "
            "(its setting max_file_bytes)",
            param="file",
        )

    def open(self, file: StoredFile) -> BinaryIO:
        """Open a file's bytes. Raises FileUnavailableError."""
        try:
            return self.blobs.open(file.id)
        except FileNotFoundError:
            raise FileUnavailableError(
                f"the bytes of {file.id} ({file.filename}) are not in the service's storage"
            ) from None

    def chunks(self, file: StoredFile) -> Iterator[bytes]:
        """A file's bytes, piece by piece. It is opened before the first piece is asked for."""
        opened = self.open(file)

        def pieces() -> Iterator[bytes]:
            with opened:
                yield from read_chunks(opened)

        return pieces()

    def fetch(self, file_id: str, target: Path) -> Path:
        """Copy a file to `target`, whole or not at all, its checksum verified.

        Also one that was deleted, or has expired, after a job was given it. Raises
        FileUnavailableError.
        """
        with self._database.read() as session:
            file = rows.file_by_id(session, file_id)
        if file is None:
            raise FileUnavailableError(f"there is no file {file_id}")
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(descriptor, "wb") as copy:
                for chunk in self.chunks(file):
                    digest.update(chunk)
                    copy.write(chunk)
            if digest.hexdigest() != file.sha256:
                raise FileUnavailableError(
                    f"the bytes of {file.id} ({file.filename}) were changed in the service's "
                    f"storage: their SHA-256 is {digest.hexdigest()}, and was {file.sha256}"
                )
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink()
            raise
        return target

    def delete(self, file: StoredFile) -> None:
        """Make a file invisible, and remove its bytes unless a job still has to copy them."""
        with self._database.write() as session:
            row = session.get_one(StoredFile, file.seq, with_for_update=True)
            row.deleted_at = row.deleted_at or int(time.time())
            awaited = rows.is_awaited(session, row)
        if not awaited:
            self.blobs.delete(file.id)

    def sweep(self, idle_s: float = IDLE_S) -> int:
        """Remove what no row needs: left from crashes, deleted, expired. Returns how many blobs.

        Any number of processes may do this at once, while others write.
        """
        with self._database.read() as session:
            expired = rows.expired_files(session)
        for file in expired:
            self.delete(file)
        complete, partial = self.blobs.idle(idle_s)
        with self._database.read() as session:
            unneeded = [name for name in complete if not self._is_needed(session, name)]
        for name in (*partial, *unneeded):
            self.blobs.delete(name)
        if num := len(partial) + len(unneeded):
            log.info("removed %d blobs that no file and no upload needs", num)
        return num

    def _is_needed(self, session: Session, name: str) -> bool:
        file = rows.file_by_id(session, name)
        if file is None:
            return rows.wanted_part(session, name)
        return file.deleted_at is None or rows.is_awaited(session, file)
