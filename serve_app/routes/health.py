"""Whether this service works, and what of it is down. No key needed."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from serve_app.context import Service
from serve_app.store.database import Database

router = APIRouter(tags=["health"])


# Of its own: calls that wait, on a hub or a slow store, may fill the threads that routes share,
# also for what routes depend on.
_threads = ThreadPoolExecutor(2, thread_name_prefix="health")


@router.get("/healthz")
async def health(request: Request) -> JSONResponse:
    """200 when everything answers, else 503; the body says what does, what does not, and why.

    What works still answers: jobs can be read while Ray is down.
    """
    return await asyncio.get_running_loop().run_in_executor(
        _threads, _health, request.app.state.service
    )


def _health(service: Service) -> JSONResponse:
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
