"""Reading a multipart body under a limit, on its way in: not after all of it was taken."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from unicodedata import category

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from serve_app.errors import bad_request

_OVERHEAD_BYTES = 64 * 1024  # boundaries, headers and the small fields
_MAX_FILENAME = 255


async def read_form(
    request: Request, max_file_bytes: int, too_large: Callable[[], Exception]
) -> FormData:
    """Return the fields; a file's bytes wait in an unlinked temporary file. Close it after use.

    Raises `too_large()` as soon as more came, or were announced, than one file may have; ApiError
    400 for a body that is not multipart.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise bad_request("Send multipart/form-data, as `curl -F` does")
    max_bytes = max_file_bytes + _OVERHEAD_BYTES
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise too_large()

    async def limited() -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise too_large()
            yield chunk

    parser: Any = MultiPartParser(request.headers, limited(), max_files=1, max_fields=16)  # pyright: ignore[reportArgumentType]
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise bad_request(f"The multipart body cannot be read: {error.message}") from None
    except ClientDisconnect:
        raise bad_request("The connection broke before the whole body had come") from None


def take_file(form: FormData, name: str, other_fields: set[str]) -> UploadFile:
    """Return the part that holds the bytes. Raises ApiError 400, also for any unknown field."""
    for field, value in form.multi_items():
        if field != name and field not in other_fields:
            known = ", ".join(sorted({name, *other_fields}))
            raise bad_request(f"{field}: unknown; there are {known}", param=field)
        if len(form.getlist(field)) > 1:
            raise bad_request(f"{field}: came more than once", param=field)
        if field != name and not isinstance(value, str):
            raise bad_request(f"{field}: send it as a field, not as a file", param=field)
    found = form.get(name)
    if isinstance(found, UploadFile):
        return found
    raise bad_request(
        f"{name}: send it as a file, with a filename, as `curl -F {name}=@path` does", param=name
    )


def base_name(filename: str | None, *, param: str = "file") -> str:
    """The last part of a path, also a Windows one; "upload" for none. Raises ApiError 400."""
    name = re.split(r"[\\/]", filename or "")[-1].strip()
    if name in ("", ".", ".."):
        return "upload"
    if len(name) > _MAX_FILENAME or any(category(character) == "Cc" for character in name):
        raise bad_request(
            f"{param}: a file's name has at most {_MAX_FILENAME} characters, without control "
            "characters",
            param=param,
        )
    return name
