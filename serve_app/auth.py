"""Who calls: the key of a request, and the limits of that key.

Every route except health and the documentation takes a `Calling` parameter.
"""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request

from serve_app.context import ServiceOf
from serve_app.errors import bad_request, unauthorized
from serve_app.keys import Caller


def key_of(request: Request) -> str | None:
    """The key in `Authorization: Bearer <key>`, or in `api-key`, which Azure's client sends."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("api-key") or None


def caller(request: Request, service: ServiceOf) -> Iterator[Caller]:
    """Who calls. Holds one of the key's places until the response is sent, streams included.

    Raises ApiError: 400 for a URL that PostgreSQL could not look up, 401 without a key that is
    known, 429 above the key's limits.
    """
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise bad_request("The URL holds a NUL byte, which no id and no filter has")
    key = key_of(request)
    if key is None:
        raise unauthorized(
            "You sent no API key. Send `Authorization: Bearer <key>`; `ferrata keys create` makes "
            "one"
        )
    found = service.keyring.authenticate(key)
    if found is None:
        raise unauthorized("This API key is not known here, or was revoked")
    with service.limiter.hold(found.key_id):
        yield found


Calling = Annotated[Caller, Depends(caller)]
