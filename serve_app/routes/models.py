"""/v1/models: what a project can train from and chat with."""

import time
from typing import Any

from fastapi import APIRouter

from serve_app import wire
from serve_app.auth import Calling
from serve_app.context import ServiceOf
from serve_app.errors import ApiError, forbidden, not_found
from serve_app.store.jobs import get_model
from serve_app.store.jobs import list_models as trained_models

router = APIRouter(prefix="/models", tags=["models"])


def no_such_model(name: str) -> ApiError:
    """404, also for another project's model."""
    return not_found(f"The model {name!r} does not exist", param="model", code="model_not_found")


@router.get("")
def list_models(caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """The project's own models, newest first, and those that the service starts from."""
    organization = service.settings.organization
    with service.database.read() as session:
        rows = trained_models(session, caller.project_id)
    own = [wire.model_object(row, organization) for row in rows]
    base = [wire.base_model_object(name, organization) for name in service.settings.models]
    return {"object": "list", "data": own + base}


# A name may hold "/", which clients send as it is or as %2F.
@router.get("/{model:path}")
def retrieve_model(model: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """One model."""
    organization = service.settings.organization
    if model in service.settings.models:
        return wire.base_model_object(model, organization)
    with service.database.read() as session:
        row = get_model(session, model, caller.project_id)
    if row is None:
        raise no_such_model(model)
    return wire.model_object(row, organization)


@router.delete("/{model:path}")
def delete_model(model: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """Give up a model: its name answers nothing any more. The job keeps its checkpoints."""
    if model in service.settings.models:
        raise forbidden(f"{model!r} is a model of the service and cannot be deleted")
    with service.database.write() as session:
        row = get_model(session, model, caller.project_id)
        if row is None:
            raise no_such_model(model)
        row.deleted_at = int(time.time())
    return {"id": model, "object": "model", "deleted": True}
