"""From a model's name to how it is asked: its files, and its job's way of sampling."""

from sqlalchemy.orm import Session

from serve_app.catalogue import find_model
from serve_app.chat.types import ChatModel
from serve_app.settings import Settings
from serve_app.store.jobs import get_job, get_model, was_base_of_a_job


def chat_model(
    settings: Settings, session: Session, project_id: str, name: str
) -> ChatModel | None:
    """Return the model; None when this project cannot name it.

    A trained model is sampled by the specification that it was trained with, a base model plainly.
    """
    known = find_model(settings, session, project_id, name)
    if known is None:
        return None
    # The hub's models may be private, and large: a project talks to those that its jobs began with,
    # whose files are here already and which its own token may read.
    if known.kind == "hub" and not was_base_of_a_job(session, project_id, name):
        return None
    row = get_model(session, name, project_id) if known.kind not in ("base", "hub") else None
    job = None if row is None else get_job(session, row.job_id)
    if job is None or job.spec is None:
        return ChatModel(name, known.path, on_hub=known.kind == "hub")
    from train.spec_file import parse_spec

    spec = parse_spec(job.spec, source=job.id)
    return ChatModel(
        name,
        known.path,
        trained=True,
        system=spec.prompt.system,
        sampling=spec.sampling_spec(temperature=0.0),
        max_model_len=spec.rollout.max_model_len,
        dtype=spec.rollout.dtype,
        grader=job.spec.get("grader"),
    )
