"""Uploads in parts: announced, filled, completed or given up.

A part is a blob with a row of its own. Completing streams the parts into one file; the file's row
and the upload's new status are one transaction, so an upload becomes a file once or not at all.
"""

import hashlib
import time
from collections.abc import Iterator
from typing import BinaryIO

from sqlalchemy.orm import Session

from serve_app.blobs import TooManyBytesError, read_chunks
from serve_app.errors import ApiError, bad_request, not_found, too_large
from serve_app.files import FileStorage
from serve_app.ids import new_id
from serve_app.store import files as rows
from serve_app.store.database import Database
from serve_app.store.tables import StoredFile, Upload, UploadPart

MAX_PART_BYTES = 64 * 2**20
LIFETIME_S = 3600


def status_of(upload: Upload) -> str:
    """pending, completed, cancelled or expired."""
    if upload.status == "pending" and upload.expires_at <= int(time.time()):
        return "expired"
    return upload.status


class Uploads:
    """The uploads of every project."""

    def __init__(self, database: Database, files: FileStorage) -> None:
        self._database, self._files = database, files

    def create(
        self,
        project_id: str,
        filename: str,
        purpose: str,
        num_bytes: int,
        file_expires_after_s: int | None,
    ) -> Upload:
        """Announce a file; its parts have an hour to come."""
        now = int(time.time())
        upload = Upload(
            id=new_id("upload_"),
            project_id=project_id,
            filename=filename,
            purpose=purpose,
            num_bytes=num_bytes,
            status="pending",
            created_at=now,
            expires_at=now + LIFETIME_S,
            file_expires_after_s=file_expires_after_s,
        )
        with self._database.write() as session:
            session.add(upload)
        return upload

    def pending(self, upload_id: str, project_id: str) -> Upload:
        """Return an upload that still takes parts. Raises ApiError 404, 400."""
        with self._database.read() as session:
            return _pending(session, upload_id, project_id)

    def add_part(self, upload_id: str, project_id: str, data: BinaryIO) -> UploadPart:
        """Store one part. Raises ApiError 404, 400, 413."""
        part_id = new_id("part_")
        try:
            written = self._files.blobs.write(part_id, read_chunks(data), MAX_PART_BYTES)
        except TooManyBytesError:
            raise too_large(
                f"data: a part has at most {MAX_PART_BYTES} bytes", param="data"
            ) from None
        part = UploadPart(
            id=part_id,
            upload_id=upload_id,
            num_bytes=written.num_bytes,
            created_at=int(time.time()),
        )
        try:
            if not written.num_bytes:
                raise bad_request("data: the part is empty", param="data")
            with self._database.write() as session:
                upload = _pending(session, upload_id, project_id, lock=True)
                _check_room(session, upload, written.num_bytes)
                session.add(part)
        except BaseException:
            self._files.blobs.delete(part_id)
            raise
        return part

    def complete(
        self,
        upload_id: str,
        project_id: str,
        part_ids: list[str],
        md5: str | None,
        *,
        is_retry: bool,
    ) -> tuple[Upload, StoredFile]:
        """Make the file of these parts, in this order. Raises ApiError 404, 400.

        `is_retry`: an upload that is completed already is answered as the first time.
        """
        with self._database.read() as session:
            upload = _find(session, upload_id, project_id)
            if is_retry and upload.file_id is not None:
                file = rows.file_by_id(session, upload.file_id)
                assert file is not None, "files keep their rows"
                return upload, file
            upload = _pending(session, upload_id, project_id)
            parts = rows.parts_of(session, upload_id)
        _check_parts(upload, parts, part_ids)
        digest = hashlib.md5(usedforsecurity=False)
        done: list[Upload] = []

        def become_file(session: Session, file: StoredFile) -> None:
            if md5 is not None and digest.hexdigest() != md5.lower():
                raise bad_request(
                    f"md5: the parts in this order have {digest.hexdigest()}, not {md5!r}",
                    param="md5",
                )
            locked = _pending(session, upload_id, project_id, lock=True)
            locked.status, locked.file_id = "completed", file.id
            done.append(locked)

        file = self._files.save(
            project_id,
            upload.filename,
            upload.purpose,
            self._bytes_of(upload, part_ids, digest),
            expires_after_s=upload.file_expires_after_s,
            also=become_file,
        )
        self._remove(parts)
        return done[0], file

    def cancel(self, upload_id: str, project_id: str) -> Upload:
        """Give an upload up. Raises ApiError 404, 400."""
        with self._database.write() as session:
            upload = _pending(session, upload_id, project_id, lock=True)
            upload.status = "cancelled"
            parts = rows.parts_of(session, upload_id)
        self._remove(parts)
        return upload

    def _bytes_of(self, upload: Upload, part_ids: list[str], digest) -> Iterator[bytes]:
        for part_id in part_ids:
            try:
                part = self._files.blobs.open(part_id)
            except FileNotFoundError:
                # Completed or cancelled by another request in the meantime: that is said instead.
                self.pending(upload.id, upload.project_id)
                raise
            with part:
                for chunk in read_chunks(part):
                    digest.update(chunk)
                    yield chunk

    def _remove(self, parts: list[UploadPart]) -> None:
        for part in parts:
            self._files.blobs.delete(part.id)


def _find(session: Session, upload_id: str, project_id: str, *, lock: bool = False) -> Upload:
    upload = rows.get_upload(session, upload_id, project_id, lock=lock)
    if upload is None:
        raise not_found(f"No such Upload object: {upload_id}", param="id")
    return upload


def _pending(session: Session, upload_id: str, project_id: str, *, lock: bool = False) -> Upload:
    upload = _find(session, upload_id, project_id, lock=lock)
    if (status := status_of(upload)) != "pending":
        raise _over(upload_id, status)
    return upload


def _over(upload_id: str, status: str) -> ApiError:
    return bad_request(
        f"{upload_id} is {status}: only a pending upload can be changed", code="wrong_upload_status"
    )


def _check_room(session: Session, upload: Upload, num_bytes: int) -> None:
    # Parts that a client sent twice are allowed for; filling the disk is not.
    most = 2 * upload.num_bytes + MAX_PART_BYTES
    if rows.num_bytes_of_parts(session, upload.id) + num_bytes > most:
        raise bad_request(
            f"data: the parts of this upload hold more than {most} bytes, and it was announced "
            f"with {upload.num_bytes}",
            param="data",
        )


def _check_parts(upload: Upload, parts: list[UploadPart], part_ids: list[str]) -> None:
    sizes = {part.id: part.num_bytes for part in parts}
    if unknown := [part_id for part_id in part_ids if part_id not in sizes]:
        raise bad_request(f"part_ids: {unknown[0]!r} is no part of {upload.id}", param="part_ids")
    if len(set(part_ids)) < len(part_ids):
        raise bad_request("part_ids: a part is named twice", param="part_ids")
    if (total := sum(sizes[part_id] for part_id in part_ids)) != upload.num_bytes:
        raise bad_request(
            f"part_ids: these parts hold {total} bytes, and the upload was announced with "
            f"{upload.num_bytes}",
            param="part_ids",
        )
