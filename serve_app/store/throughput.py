"""How fast a model was sampled and trained here, from the metrics of a project's own jobs."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve_app.store.tables import Event, Job
from train.selection.estimate import Throughput

NEWEST_STEPS = 50


def measured_throughput(session: Session, project_id: str, model: str) -> Throughput | None:
    """The mean over the newest steps of jobs that train `model`; None when there are none."""
    query = (
        select(Event)
        .join(Job, Job.id == Event.job_id)
        .where(Job.project_id == project_id, Job.model == model, Event.type == "metrics")
        .order_by(Job.seq.desc(), Event.seq.desc())
        .limit(NEWEST_STEPS)
    )
    sampled = trained = sampling_s = training_s = 0.0
    steps = 0
    for event in session.scalars(query):
        step = (event.data.get("timing") or {}).get("step") or {}
        tokens, learnt = event.data.get("num_tokens"), event.data.get("learner_tokens")
        if not (tokens and learnt and step.get("sampling") and step.get("training")):
            continue
        sampled, trained = sampled + tokens, trained + learnt
        sampling_s, training_s = sampling_s + step["sampling"], training_s + step["training"]
        steps += 1
    if not steps:
        return None
    return Throughput(sampled / sampling_s, trained / training_s, steps)
