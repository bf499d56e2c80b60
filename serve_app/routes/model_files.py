"""/v1/models/{model}/content: a model's files, to be run anywhere."""

from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from serve_app.auth import Calling
from serve_app.context import ServiceOf
from serve_app.errors import not_found
from serve_app.model_archive import archive, model_files
from serve_app.store.jobs import get_model

router = APIRouter(prefix="/models", tags=["models"])


@router.get("/{model:path}/content", response_class=StreamingResponse)
def model_content(model: str, caller: Calling, service: ServiceOf) -> StreamingResponse:
    """A tar of the model's weights, configuration, tokenizer and card.

    Of a model that the project trained, or of one that the service starts from.
    """
    folder = service.settings.models.get(model)
    if folder is None:
        with service.database.read() as session:
            row = get_model(session, model, caller.project_id)
        if row is None:
            raise not_found(
                f"The model {model!r} does not exist", param="model", code="model_not_found"
            )
        folder = row.path
    files = model_files(Path(folder))
    if not files:
        raise not_found(
            f"The files of {model!r} are gone from the service's data folder",
            param="model",
            code="model_files_missing",
        )
    length, chunks = archive(files)
    name = model.replace("/", "-").replace(":", "-")
    headers = {
        "content-length": str(length),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}.tar",
    }
    return StreamingResponse(chunks, headers=headers, media_type="application/x-tar")
