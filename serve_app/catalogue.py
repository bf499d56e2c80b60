"""Which models a project can name, in a job and on the chat endpoint, and where they lie.

A name is one of the settings' base models, a model that this project trained, or, where the
settings allow it, a model of the hub. A folder of the server can never be named.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from serve_app.settings import Settings
from serve_app.store.jobs import get_model, list_models

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class HubUnreachableError(Exception):
    """Whether the hub has a model could not be found out."""


@dataclass(frozen=True)
class KnownModel:
    """A model that can be used."""

    name: str
    path: str  # a Hugging Face folder; of a hub model its name
    kind: str  # base, fine_tuned, checkpoint or hub


def find_model(
    settings: Settings, session: Session, project_id: str, name: str
) -> KnownModel | None:
    """Return the model; None when this project cannot name it. Hub names are taken as they are."""
    if name in settings.models:
        return KnownModel(name, settings.models[name], "base")
    if (row := get_model(session, name, project_id)) is not None:
        return KnownModel(name, row.path, row.kind)
    if settings.allow_hub_models and is_hub_name(name):
        return KnownModel(name, name, "hub")
    return None


def candidates(settings: Settings, session: Session, project_id: str) -> dict[str, str]:
    """Models that a project may have compared, name -> folder: the base models and its own."""
    own = [model for model in list_models(session, project_id) if model.kind == "fine_tuned"]
    return {**settings.models, **{model.name: model.path for model in own}}


def is_hub_name(name: str) -> bool:
    """True for "owner/name". False when such a folder lies here: loaders would prefer it."""
    return bool(_HUB_NAME.fullmatch(name)) and ".." not in name and not Path(name).exists()


def hub_has(name: str, token: str | None) -> bool:
    """True when the hub has the model and `token` may read it; asks the hub or its local cache.

    Raises HubUnreachableError.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        # False: a project without a token must not read what the operator's own may read.
        hf_hub_download(name, "config.json", token=token or False)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise HubUnreachableError(f"the hub does not answer: {type(error).__name__}") from None
    except (GatedRepoError, RepositoryNotFoundError, EntryNotFoundError):
        return False
    except HfHubHTTPError as error:
        raise HubUnreachableError(f"the hub answered {error.response.status_code}") from None
    return True
