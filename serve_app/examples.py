"""Calls for verified expert solutions, and what they would take."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.catalogue import KnownModel
from serve_app.context import Service
from serve_app.create import check_model, check_teacher
from serve_app.keys import Caller
from serve_app.native_schemas import GenerateExamples
from serve_app.preparation import BASE_FOLDER, TEACHER_FOLDER
from serve_app.preview import PREVIEW
from serve_app.request_types import RequestError
from serve_app.settings import TASKS_FOLDER
from serve_app.tasks import (
    PURPOSE,
    Runner,
    as_lines,
    fetched,
    grader_of,
    on_ray,
    pinned_model,
    rows_file,
    run_work,
    task_folder,
)

JOURNALS = "journals"  # in the folder of calls beside jobs
ANSWER_WITHIN_S = 0.8  # of a teacher's deadline: the rest is for the drafts under way
ESTIMATE_DEADLINE_S, TEACHER_DEADLINE_S = 300.0, 1800.0
EXAMPLES_NAME = "examples.jsonl"


def generate(
    service: Service,
    caller: Caller,
    body: GenerateExamples,
    run: Runner = on_ray,
    watch: Path | None = None,
) -> dict[str, Any]:
    """Write verified expert solutions into a new file. Raises RequestError, ApiError.

    What a teacher wrote is kept for a day: the same call again, after a time-out or a kill, pays
    only for the rest, and while the first one still runs it waits for it. `watch` is a folder by
    which a teacher's work is followed and ended (`native_work.generate_examples`).
    """
    deadline_s = TEACHER_DEADLINE_S if body.teacher or body.policy else ESTIMATE_DEADLINE_S
    model = check_teacher(service, caller, body.teacher)
    policy = body.policy and check_model(service, caller, body.policy.model, "policy.model")
    with task_folder(service) as folder:
        arguments = _arguments(service, caller, body, folder)
        arguments["mode"] = body.mode
        if policy is not None:
            arguments["policy"] = _policy(body, policy, folder)
        if body.teacher:
            free = body.teacher.model_dump(mode="json", exclude={"price"})
            asked = arguments | {"documents": body.documents, "teacher": free}
            arguments["journal"] = _journal(service, caller, asked)
            arguments["deadline_s"] = ANSWER_WITHIN_S * deadline_s
        if model is not None:
            arguments["teacher_path"] = pinned_model(
                model, folder / TEACHER_FOLDER, "teacher.model"
            )
        if body.teacher or policy is not None:
            arguments["watch"] = watch
        made = run_work(run, service, caller, body, deadline_s, "generate_examples", arguments)
    stored = service.files.save(
        caller.project_id, EXAMPLES_NAME, PURPOSE, iter([as_lines(made["rows"])])
    )
    return {
        "object": "fine_tuning.examples",
        "file_id": stored.id,
        "examples_generated": len(made["rows"]),
        "num_rejected": made["num_rejected"],
        "num_unknown": made["num_unknown"],
        "mode": body.mode,
        "message": made["summary"],
        **{name: made[name] for name in ("teacher", "policy") if name in made},
        "examples": made["rows"][:PREVIEW],
    }


def estimate(
    service: Service, caller: Caller, body: GenerateExamples, run: Runner = on_ray
) -> dict[str, Any]:
    """Tokens and price of `generate`, before anybody is asked. Raises as that does."""
    model = check_teacher(service, caller, body.teacher)
    if body.policy is not None:
        check_model(service, caller, body.policy.model, "policy.model")
    if body.teacher is None:
        raise RequestError(
            "teacher: the solver is no teacher and costs nothing; give the teacher to estimate",
            "teacher",
        )
    with task_folder(service) as folder:
        arguments = _arguments(service, caller, body, folder)
        if model is not None:
            arguments["teacher_path"] = pinned_model(
                model, folder / TEACHER_FOLDER, "teacher.model"
            )
        work = "estimate_examples"
        found = run_work(run, service, caller, body, ESTIMATE_DEADLINE_S, work, arguments)
    if body.policy is not None:
        found["not_counted"] = (
            "policy: it is sampled when examples are written; rows that it always solves are not "
            "asked then"
        )
    return {"object": "fine_tuning.examples.estimate", **found}


def _arguments(
    service: Service, caller: Caller, body: GenerateExamples, folder: Path
) -> dict[str, Any]:
    """What both calls about examples hand to the work."""
    arguments = {
        "path": rows_file(service, caller, body, folder),
        "num_examples": body.num_examples,
        "grader": grader_of(body),
        "seed": body.seed,
        "teacher": body.teacher and body.teacher.model_dump(mode="json"),
    }
    if body.teacher:
        arguments["documents"] = [
            fetched(service, caller, file_id, folder, f"documents[{k}]")
            for k, file_id in enumerate(body.documents)
        ]
    return arguments


def _policy(body: GenerateExamples, model: KnownModel, folder: Path) -> dict[str, Any]:
    """What to measure: the model, where it lies, and how closely."""
    assert body.policy is not None
    path = pinned_model(model, folder / BASE_FOLDER, "policy.model")
    return body.policy.model_dump(mode="json") | {"path": path}


def _journal(service: Service, caller: Caller, arguments: Mapping[str, Any]) -> Path:
    """The file of this very call: of its project, rows, teacher and all else that is asked."""
    asked = {name: value for name, value in arguments.items() if name != "path"}
    if policy := asked.get("policy"):
        asked["policy"] = {name: value for name, value in policy.items() if name != "path"}
    rows = hashlib.sha256(arguments["path"].read_bytes()).hexdigest()
    whole = json.dumps([caller.project_id, rows, asked], sort_keys=True)
    folder = service.settings.data / TASKS_FOLDER / JOURNALS
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(whole.encode()).hexdigest()}.jsonl"
