"""`/files`: upload, list, retrieve, delete, download."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import FormData

from serve_app.auth import Calling
from serve_app.context import Service, ServiceOf
from serve_app.errors import ApiError, bad_request, not_found
from serve_app.multipart import base_name, read_form, take_file
from serve_app.request_types import request_error
from serve_app.store import files as rows
from serve_app.store.tables import StoredFile

router = APIRouter(tags=["files"])
UPLOAD_PURPOSES = ("fine-tune", "user_data")
_RESULTS = "fine-tune-results"
_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": list(UPLOAD_PURPOSES)},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
    },
}


class ExpiresAfter(BaseModel, extra="forbid"):
    """When a file goes away by itself."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)  # an hour to 30 days


def file_object(file: StoredFile) -> dict[str, Any]:
    """A file as the wire shows it. Its rows are checked when a job starts, not here."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def check_purpose(purpose: str) -> str:
    """Return a purpose that a client may upload for. Raises ApiError 400."""
    if purpose in UPLOAD_PURPOSES:
        return purpose
    choices = " or ".join(repr(choice) for choice in UPLOAD_PURPOSES)
    said = (
        f"purpose: {purpose[:64]!r} is not for uploads"
        if purpose == _RESULTS
        else (f"purpose: {purpose[:64]!r} is unknown here" if purpose else "purpose: is missing")
    )
    raise bad_request(f"{said}; send {choices}", param="purpose")


@router.post(
    "/files",
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
    },
)
async def create_file(request: Request, service: ServiceOf, caller: Calling) -> dict[str, Any]:
    """Store a file. Asynchronous, since its bytes are taken under a limit as they come."""
    limit = service.settings.max_file_bytes
    form = await read_form(request, limit, lambda: service.files.too_large("The file"))
    try:
        return await run_in_threadpool(_save, service, caller.project_id, form)
    finally:
        await form.close()


def _save(service: Service, project_id: str, form: FormData) -> dict[str, Any]:
    upload = take_file(form, "file", set(_FORM["properties"]) - {"file"})
    purpose = check_purpose(str(form.get("purpose", "")))
    expires_after = _expires_after(form)
    file = service.files.save(
        project_id,
        base_name(upload.filename),
        purpose,
        upload.file,
        expires_after_s=expires_after.seconds if expires_after else None,
    )
    return file_object(file)


def _expires_after(form: FormData) -> ExpiresAfter | None:
    names = {f"expires_after[{name}]": name for name in ("anchor", "seconds")}
    given = {short: form[name] for name, short in names.items() if name in form}
    if not given:
        return None
    try:
        return ExpiresAfter.model_validate(given)
    except ValidationError as error:
        told = request_error(error.errors())
        param = f"expires_after[{told.param}]"
        raise bad_request(f"expires_after: {told.message}", param=param) from None


@router.get("/files")
def list_files(
    service: ServiceOf,
    caller: Calling,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Mapping[str, Any]:
    """The project's files, newest first."""
    try:
        with service.database.read() as session:
            found, more = rows.list_files(
                session,
                caller.project_id,
                after=after,
                limit=limit,
                order=order,
                purpose=purpose,
            )
    except KeyError:
        raise bad_request(f"after: there is no file {after!r}", param="after") from None
    data = [file_object(file) for file in found]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "has_more": more, "first_id": first, "last_id": last}


@router.get("/files/{file_id}")
def retrieve_file(service: ServiceOf, caller: Calling, file_id: str) -> Mapping[str, Any]:
    """One file."""
    return file_object(find_file(service, caller.project_id, file_id))


@router.delete("/files/{file_id}")
def delete_file(service: ServiceOf, caller: Calling, file_id: str) -> Mapping[str, Any]:
    """Forget a file. Jobs that were given it go on."""
    service.files.delete(find_file(service, caller.project_id, file_id))
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/files/{file_id}/content", response_class=StreamingResponse)
def file_content(service: ServiceOf, caller: Calling, file_id: str) -> StreamingResponse:
    """A file's bytes, as they were uploaded."""
    file = find_file(service, caller.project_id, file_id)
    headers = {
        "content-length": str(file.num_bytes),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
    }
    return StreamingResponse(
        service.files.chunks(file), headers=headers, media_type="application/octet-stream"
    )


def find_file(service: Service, project_id: str, file_id: str) -> StoredFile:
    """Return the project's file. Raises ApiError 404."""
    with service.database.read() as session:
        file = rows.get_file(session, file_id, project_id)
    if file is None:
        raise no_such_file(file_id)
    return file


def no_such_file(file_id: str) -> ApiError:
    """The one answer about files that are unknown, deleted, expired, or another project's."""
    return not_found(f"No such File object: {file_id}", param="id")
