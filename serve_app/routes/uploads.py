"""`/uploads`: a large file in parts of up to 64 MiB, in any order, put together at the end."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from serve_app.auth import Calling
from serve_app.context import Service, ServiceOf
from serve_app.errors import bad_request, too_large
from serve_app.multipart import base_name, read_form, take_file
from serve_app.routes.files import ExpiresAfter, check_purpose, file_object
from serve_app.store.tables import StoredFile, Upload
from serve_app.uploads import MAX_PART_BYTES, Uploads, status_of

router = APIRouter(tags=["uploads"])
_MIME_TYPES = {  # what people call JSON lines
    *("application/json", "application/jsonl", "application/jsonlines", "application/octet-stream"),
    *("application/x-jsonlines", "application/x-ndjson", "text/jsonl", "text/plain"),
}
_FORM = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary"}},
}


class CreateUpload(BaseModel, extra="forbid"):
    """What will come."""

    bytes: int = Field(ge=1, strict=True)
    filename: str
    mime_type: str | None = None
    purpose: str
    expires_after: ExpiresAfter | None = None


class CompleteUpload(BaseModel, extra="forbid"):
    """Which parts, in which order, make the file."""

    part_ids: list[str] = Field(min_length=1)
    md5: str | None = None


def upload_object(upload: Upload, file: StoredFile | None = None) -> dict[str, Any]:
    """An upload as the wire shows it."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.num_bytes,
        "created_at": upload.created_at,
        "expires_at": upload.expires_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": status_of(upload),
        "file": None if file is None else file_object(file),
    }


@router.post("/uploads")
def create_upload(body: CreateUpload, service: ServiceOf, caller: Calling) -> dict[str, Any]:
    """Announce a file."""
    purpose = check_purpose(body.purpose)
    if body.bytes > service.settings.max_file_bytes:
        raise service.files.too_large(f"bytes: {body.bytes}: the file")
    mime_type = (body.mime_type or "text/jsonl").partition(";")[0].strip().lower()
    if purpose == "fine-tune" and mime_type not in _MIME_TYPES:
        raise bad_request(
            f"mime_type: {body.mime_type!r} is not for fine-tuning; send one of "
            f"{', '.join(sorted(_MIME_TYPES))}",
            param="mime_type",
        )
    upload = _uploads(service).create(
        caller.project_id,
        base_name(body.filename, param="filename"),
        purpose,
        body.bytes,
        body.expires_after.seconds if body.expires_after else None,
    )
    return upload_object(upload)


@router.post(
    "/uploads/{upload_id}/parts",
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
    },
)
async def add_part(
    request: Request, upload_id: str, service: ServiceOf, caller: Calling
) -> dict[str, Any]:
    """Store one part; parts may come at the same time and in any order."""
    uploads = _uploads(service)
    await run_in_threadpool(uploads.pending, upload_id, caller.project_id)
    form = await read_form(request, MAX_PART_BYTES, _part_too_large)
    try:
        data = take_file(form, "data", set())
        part = await run_in_threadpool(uploads.add_part, upload_id, caller.project_id, data.file)
    finally:
        await form.close()
    return {
        "id": part.id,
        "object": "upload.part",
        "created_at": part.created_at,
        "upload_id": upload_id,
    }


@router.post("/uploads/{upload_id}/complete")
def complete_upload(
    request: Request, upload_id: str, body: CompleteUpload, service: ServiceOf, caller: Calling
) -> dict[str, Any]:
    """Put the parts together. A client's own retry of this call gets the same answer."""
    is_retry = request.headers.get("x-stainless-retry-count", "0") != "0"
    upload, file = _uploads(service).complete(
        upload_id, caller.project_id, body.part_ids, body.md5, is_retry=is_retry
    )
    return upload_object(upload, file)


@router.post("/uploads/{upload_id}/cancel")
def cancel_upload(upload_id: str, service: ServiceOf, caller: Calling) -> dict[str, Any]:
    """Give an upload up; its parts are removed."""
    return upload_object(_uploads(service).cancel(upload_id, caller.project_id))


def _uploads(service: Service) -> Uploads:
    return Uploads(service.database, service.files)


def _part_too_large() -> Exception:
    return too_large(f"data: a part has at most {MAX_PART_BYTES} bytes", param="data")
