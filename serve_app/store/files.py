"""Uploaded files, and uploads that arrive in parts: every query over them."""

import json
import time

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from serve_app.store.jobs import OPEN
from serve_app.store.tables import Job, StoredFile, Upload, UploadPart


def get_file(
    session: Session, file_id: str, project_id: str, *, keep: bool = False
) -> StoredFile | None:
    """Return a file of this project that was not deleted and has not expired.

    `keep`: it is not deleted until the transaction ends, which writes what awaits the file.
    """
    query = select(StoredFile).where(StoredFile.id == file_id, *_visible(project_id))
    return session.scalar(query.with_for_update(read=True) if keep else query)


def list_files(
    session: Session,
    project_id: str,
    *,
    after: str | None = None,
    limit: int = 10_000,
    order: str = "desc",
    purpose: str | None = None,
) -> tuple[list[StoredFile], bool]:
    """Return (files, whether more follow), newest first unless `order` is "asc".

    Raises KeyError for an `after` that never was a file of the project.
    """
    query = select(StoredFile).where(*_visible(project_id))
    query = query.order_by(StoredFile.seq.asc() if order == "asc" else StoredFile.seq.desc())
    if purpose is not None:
        query = query.where(StoredFile.purpose == purpose)
    if after is not None:
        # A file that was deleted between two pages still marks its place.
        place = select(StoredFile.seq).where(
            StoredFile.id == after, StoredFile.project_id == project_id
        )
        if (seq := session.scalar(place)) is None:
            raise KeyError(after)
        query = query.where(StoredFile.seq > seq if order == "asc" else StoredFile.seq < seq)
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], len(found) > limit


def file_by_id(session: Session, file_id: str) -> StoredFile | None:
    """Return any file, deleted and expired ones too: for jobs that were given it before."""
    return session.scalar(select(StoredFile).where(StoredFile.id == file_id))


def is_awaited(session: Session, file: StoredFile) -> bool:
    """True while a job that names this file has not taken its copy."""
    query = select(Job).where(Job.project_id == file.project_id, Job.status.in_(OPEN))
    for job in session.scalars(query):
        if job.spec is None and (
            file.id in (job.training_file, job.validation_file)
            or f'"{file.id}"' in json.dumps(job.request)
        ):
            return True
    return False


def expired_files(session: Session) -> list[StoredFile]:
    """Files past their time that are not yet marked as deleted."""
    query = select(StoredFile).where(
        StoredFile.deleted_at.is_(None), StoredFile.expires_at <= int(time.time())
    )
    return list(session.scalars(query))


def get_upload(
    session: Session, upload_id: str, project_id: str, *, lock: bool = False
) -> Upload | None:
    """Return an upload of this project."""
    query = select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.scalar(query)


def parts_of(session: Session, upload_id: str) -> list[UploadPart]:
    """Every part of an upload."""
    return list(session.scalars(select(UploadPart).where(UploadPart.upload_id == upload_id)))


def num_bytes_of_parts(session: Session, upload_id: str) -> int:
    """How many bytes an upload's parts hold together."""
    query = select(func.sum(UploadPart.num_bytes)).where(UploadPart.upload_id == upload_id)
    return int(session.scalar(query) or 0)


def wanted_part(session: Session, part_id: str) -> bool:
    """True for a part whose upload can still be completed."""
    query = (
        select(UploadPart.id)
        .join(Upload)
        .where(UploadPart.id == part_id, Upload.status == "pending")
        .where(Upload.expires_at > int(time.time()))
    )
    return session.scalar(query) is not None


def _visible(project_id: str) -> list[ColumnElement[bool]]:
    return [
        StoredFile.project_id == project_id,
        StoredFile.deleted_at.is_(None),
        or_(StoredFile.expires_at.is_(None), StoredFile.expires_at > int(time.time())),
    ]
