"""From a create call and its files to a complete `JobSpec`, or to what the client has to mend.

The manager runs `prepare` in a Ray task. It reads the rows, chooses what is "auto", writes the
job's data and `spec.json`, and checks the whole as `python -m train --check` would. It starts no
engine.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.prepare_error import PrepareError, from_data_error, from_spec_error
from serve_app.prepare_experts import add_expert_steps, choose_grader
from serve_app.prepare_resolved import resolve
from serve_app.prepare_rows import (
    NAMES,
    JobRows,
    read_job_rows,
    split_validation,
    write_rows,
)
from serve_app.prepare_spec import (
    ModelAtHand,
    asked_protocol,
    assemble,
    load_model_at_hand,
    wishes_of,
)
from serve_app.request_types import RequestError, parse_request
from serve_app.schemas import CreateJob, given_fields
from train.data import DataError
from train.plan import steps_planned
from train.spec import JobSpec, MoreExamplesSpec
from train.spec_file import load_spec, parse_spec, spec_to_json

SPEC_FILE, DATA_FOLDER, TEACHER_FILE = "spec.json", "data", "teacher.jsonl"
DOCUMENTS_FOLDER = "documents"

__all__ = ["PrepareError", "Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A job that can be run."""

    spec: dict[str, Any]  # a train.spec.JobSpec; its paths start at the job's folder
    resolved: dict[str, Any]  # the create call's fields with every "auto" replaced
    notes: list[str]  # why each automatic choice
    steps_planned: int  # optimizer steps of all stages, and policies evaluated on held-out rows


def prepare(
    request: dict[str, Any],
    folder: Path,
    files: Mapping[str, Path],
    model_path: str,
    cluster: Mapping[str, float],
    teacher_path: str | None = None,
    documents: Sequence[Path] = (),
) -> Prepared:
    """Prepare a job in `folder`.

    `request` is the stored body of the create call; `files` are local copies: "training",
    "validation"?, "heldout"?; `cluster` is what Ray says it has in all; `teacher_path` is where the
    model of a teacher on the cluster's own engines lies; `documents` are for a teacher to read.
    Raises PrepareError.
    """
    try:
        job: CreateJob = parse_request(
            CreateJob, {name: value for name, value in request.items() if name != "resolved"}
        )
    except RequestError as error:
        raise PrepareError(error.code or "invalid_value", error.message, error.param, []) from None
    try:
        model = load_model_at_hand(model_path)
        return _prepare(job, folder, files, model, cluster, teacher_path, documents)
    except PrepareError as error:
        # The client knows the model by its name; where it lies on this machine is nobody's concern.
        message = error.message.replace(repr(model_path), job.model).replace(model_path, job.model)
        param = error.param
        if teacher_path is not None and job.teacher is not None:
            message = message.replace(teacher_path, job.teacher.model)
        if param is not None and param.startswith("more_examples.teacher"):
            param = param.removeprefix("more_examples.")  # where the client gave it
        raise PrepareError(error.code, message, param, error.lines) from None


def _prepare(
    job: CreateJob,
    folder: Path,
    files: Mapping[str, Path],
    model: ModelAtHand,
    cluster: Mapping[str, float],
    teacher_path: str | None,
    documents: Sequence[Path],
) -> Prepared:
    seed = job.seed or 0
    data = read_job_rows(files, "problems")
    grader = choose_grader(job, data)
    needs_answer = getattr(grader, "needs_reference_answer", False)
    split_validation(
        data,
        seed,
        wishes_of(job).eval_samples,
        lambda row: row.reference_answer is not None or not needs_answer,
    )
    protocol = asked_protocol(job) or "stepwise"
    has_steps = add_expert_steps(
        job, data, grader, protocol, seed, folder / TEACHER_FILE, teacher_path, documents
    )
    raw, notes = assemble(job, data, grader, model, cluster, has_steps=has_steps)
    if job.more_examples is not None:
        raw["more_examples"] = _more_examples(job, raw, folder, teacher_path, documents)
    spec = _write_and_check(raw, folder, data, cluster)
    planned = steps_planned(spec, data.rows["training"])
    return Prepared(spec_to_json(spec), resolve(job, spec, data), notes, planned)


def _more_examples(
    job: CreateJob,
    raw: Mapping[str, Any],
    folder: Path,
    teacher_path: str | None,
    documents: Sequence[Path],
) -> dict[str, Any]:
    """The specification's part; the documents are copied to where the job's driver reads them.

    Raises PrepareError where the job has no SRL after all.
    """
    if "srl" not in raw:
        raise no_srl_for_more_examples()
    kept = []
    for k, path in enumerate(documents):
        (folder / DOCUMENTS_FOLDER).mkdir(parents=True, exist_ok=True)
        kept.append(f"{DOCUMENTS_FOLDER}/{k}.txt")
        shutil.copyfile(path, folder / kept[-1])
    return {
        **given_fields(job.more_examples, MoreExamplesSpec),
        "teacher": job.teacher and job.teacher.model_dump(mode="json"),
        "teacher_model": teacher_path,
        "documents": kept,
    }


def no_srl_for_more_examples() -> PrepareError:
    """Of a job whose rows carry no steps, and shall get none before SRL."""
    return PrepareError(
        "invalid_training_file",
        "more_examples are for what SRL leaves weak, but no row has `expert_steps` for SRL to "
        "learn from; add them to some rows, or set num_examples to have them written.",
        "more_examples",
        [],
    )


def _write_and_check(
    raw: dict[str, Any], folder: Path, data: JobRows, cluster: Mapping[str, float]
) -> JobSpec:
    """Write rows and specification; check both as the driver will."""
    from train.preflight import check_cluster, check_job

    paths = write_rows(data, folder / DATA_FOLDER)
    raw["data"] = {NAMES[use]: f"{DATA_FOLDER}/{path.name}" for use, path in paths.items()}
    sources = {path.resolve(): data.sources[use] for use, path in paths.items()}
    try:
        spec = parse_spec(raw, source=SPEC_FILE)
        path = folder / SPEC_FILE
        path.write_text(json.dumps(spec_to_json(spec), indent=1), encoding="utf-8")
        check_job(loaded := load_spec(path))
        check_cluster(loaded, cluster)
    except DataError as error:
        raise from_data_error(error, sources) from None
    except ValueError as error:
        raise from_spec_error(error) from None
    return spec
