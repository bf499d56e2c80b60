"""Whether this service works, and what of it is down. No key needed."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from serve_app.context import ServiceOf
from serve_app.store.database import Database

router = APIRouter(tags=["health"])


@router.get("/healthz")
def health(service: ServiceOf) -> JSONResponse:
    """200 when everything answers, else 503; the body says what does, what does not, and why.

    What works still answers: jobs can be read while Ray is down.
    """
    parts = {
        "store": _store(service.database),
        "ray": service.manager.health(),
        "engine": service.chat.health(),
    }
    down = [name for name, part in parts.items() if not part["ok"]]
    status = "ok" if not down else f"down: {', '.join(down)}"
    return JSONResponse({"status": status, **parts}, 503 if down else 200)


def _store(database: Database) -> Mapping[str, Any]:
    try:
        database.ping()
    except SQLAlchemyError as error:
        # The database's own words could hold its address; the class is enough to begin with.
        return {"ok": False, "detail": f"{type(error).__name__}: see the service's log"}
    return {"ok": True, "detail": database.url.get_backend_name()}
