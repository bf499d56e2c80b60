"""Work beside jobs: where it runs, and what calls hand to it.

The work itself is in `serve_app.native_work` and runs on Ray (`on_ray`); tests hand in a runner of
their own.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve_app.catalogue import KnownModel
from serve_app.context import Service
from serve_app.ids import new_id
from serve_app.keys import Caller
from serve_app.native_schemas import RowsOrFile
from serve_app.preparation import pinned
from serve_app.prepare_error import PrepareError
from serve_app.request_types import RequestError
from serve_app.settings import TASKS_FOLDER, Settings
from serve_app.store.files import get_file

PURPOSE = "fine-tune"

SEES_CLUSTER = ("estimate_job", "select_model", "generate_examples")  # work that asks what it has

# run(service, caller, deadline_s, name of a function of native_work, arguments) -> its result.
Runner = Callable[[Service, Caller, float, str, Mapping[str, Any]], Any]


def on_ray(
    service: Service, caller: Caller, deadline_s: float, function: str, arguments: Mapping[str, Any]
) -> Any:
    """Run a function of `native_work` in a Ray task, with the project's secrets.

    `cluster` is added to its arguments where it takes one. Raises PrepareError, TimeoutError.
    """
    import ray

    settings = service.settings
    # max_calls: the worker ends with the task, and with it the secrets in its environment.
    task = ray.remote(num_cpus=0, max_calls=1)(_in_worker).options(
        name=f"{function}:{caller.project_id}",
        runtime_env={"env_vars": settings.grader_environment},
    )
    call = task.remote(settings, caller.project_id, function, dict(arguments))
    try:
        outcome = ray.get(call, timeout=deadline_s)
    except ray.exceptions.GetTimeoutError:  # pyright: ignore[reportAttributeAccessIssue]
        ray.cancel(call, force=True)
        raise TimeoutError(
            f"waited {deadline_s:.0f} s for {function}; is the cluster full? Ask for fewer "
            "problems or models, or later"
        ) from None
    if isinstance(outcome, PrepareError):
        raise outcome
    return outcome


def _in_worker(settings: Settings, project_id: str, function: str, arguments: dict) -> Any:
    from serve_app import native_work
    from serve_app.manager import cluster_resources, project_secrets
    from serve_app.store.database import Database
    from train import secrets

    database = Database(settings.store_url)
    secrets.give(project_secrets(settings, database, project_id))
    database.close()
    if function in SEES_CLUSTER:
        arguments["cluster"] = cluster_resources()
    try:
        return getattr(native_work, function)(**arguments)
    except PrepareError as error:  # a value: Ray would wrap it in a class of its own
        return error


def run_work(
    run: Runner,
    service: Service,
    caller: Caller,
    body: RowsOrFile,
    deadline_s: float,
    function: str,
    arguments: Mapping[str, Any],
) -> Any:
    """Run the work; what is wrong with the rows is said of the field that held them."""
    try:
        return run(service, caller, deadline_s, function, arguments)
    except PrepareError as error:
        source = "rows" if body.rows is not None else "file"
        param = {"training_file": source, "method": "grader"}.get(error.param or "", error.param)
        raise RequestError(error.message, param, error.code) from None


def pinned_model(model: KnownModel, folder: Path, param: str) -> str:
    """Where a model lies while it is at work. Raises RequestError of `param` when it is gone."""
    try:
        return pinned(model, folder)
    except PrepareError as error:
        raise RequestError(error.message, param, error.code) from None


def grader_of(body: RowsOrFile) -> dict[str, Any] | None:
    """The grader that a body names, as it was sent."""
    return body.grader and body.grader.model_dump(mode="json", exclude_unset=True)


def rows_file(service: Service, caller: Caller, body: RowsOrFile, folder: Path) -> Path:
    """The body's rows, or its file, as a local file."""
    if body.file is not None:
        return fetched(service, caller, body.file, folder, "file")
    path = folder / "rows.jsonl"
    path.write_bytes(as_lines(body.rows or []))
    return path


def fetched(service: Service, caller: Caller, file_id: str, folder: Path, param: str) -> Path:
    """A local copy of the project's file. Raises RequestError when it has none of that id."""
    with service.database.read() as session:
        found = get_file(session, file_id, caller.project_id)
    if found is None:
        raise RequestError(f"{param}: there is no file {file_id!r}", param, "file_not_found")
    return service.files.fetch(file_id, folder / f"{param}.jsonl")


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    """Rows as a JSON Lines file."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def new_folder(service: Service) -> Path:
    """A folder that every node sees. Whoever made it removes it."""
    folder = service.settings.data / TASKS_FOLDER / new_id("task-")
    folder.mkdir(parents=True)
    return folder


@contextmanager
def task_folder(service: Service) -> Iterator[Path]:
    """A folder that every node sees, gone afterwards."""
    folder = new_folder(service)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
