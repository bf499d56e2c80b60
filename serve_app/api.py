"""The HTTP application over one `Service`: which routes there are. No Ray, no torch.

`serve_app.app` runs it under Ray Serve; tests run it with Starlette's client.
"""

from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from serve_app.azure import AzurePaths
from serve_app.body_guard import BodyGuard
from serve_app.context import Service
from serve_app.errors import install
from serve_app.routes import (
    chat,
    files,
    graders,
    health,
    job_details,
    jobs,
    model_files,
    models,
    native,
    uploads,
)

# Everything under /v1, which is also reached under /openai as Azure's clients write it.
V1: list[APIRouter] = [  # one of each routes/<noun>.py
    chat.router,
    files.router,
    uploads.router,
    jobs.router,
    job_details.router,
    graders.router,
    native.fine_tuning,
    native.router,
    model_files.router,  # before models, whose names may hold "/"
    models.router,
]


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """The body of every 4xx and 5xx."""

    error: ErrorBody


def create_api(service: Service, *, request_id_header: bool = True) -> FastAPI:
    """Return the application. `request_id_header` False: a proxy adds `x-request-id` itself."""
    app = FastAPI(
        title="Ferrata",
        version=version("ferrata"),
        responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
    )
    app.state.service = service
    for router in V1:
        app.include_router(router, prefix="/v1")
    app.include_router(native.router, include_in_schema=False)
    app.include_router(health.router)
    app.add_middleware(BodyGuard)
    app.add_middleware(AzurePaths)  # outside the guard, which knows the usual paths
    install(app, request_id_header=request_id_header)
    return app
