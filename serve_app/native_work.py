"""The work behind the calls beside jobs, on local files. Runs in a Ray task of its own.

It loads tokenizers, starts engines and runs graders, none of which an API replica should do.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rollout.verifiers.registry import parse_grader
from serve_app.examples_stream import CANCEL, PROGRESS
from serve_app.measure_policy import MEASURED, PolicySampling, measured_once
from serve_app.native_select import select_model
from serve_app.prepare import no_srl_for_more_examples, prepare
from serve_app.prepare_error import PrepareError
from serve_app.prepare_experts import find_grader, read_documents
from serve_app.prepare_resolved import resolved_more_examples
from serve_app.prepare_rows import as_json, read_rows_of
from serve_app.prepare_spec import load_model_at_hand
from serve_app.request_types import AUTO
from train.data import Row, read_rows
from train.experts.by_teacher import (
    NothingToAskError,
    TeacherSpec,
    askable_rows,
    parse_teacher,
    write_examples,
)
from train.experts.collected import Asked, Collected
from train.experts.engine_teacher import TeacherStartError
from train.experts.generator import Generated
from train.experts.journal import JournalError
from train.experts.solver import UnknownFamilyError, solve_rows, with_solution
from train.experts.teacher_estimate import estimate_teacher
from train.plan import steps_planned
from train.prompts import PromptRenderer
from train.selection.estimate import Throughput, estimate, estimate_parts
from train.spec import AllocationMode, JobSpec, MoreExamplesSpec
from train.spec_file import load_spec

__all__ = ["estimate_examples", "estimate_job", "generate_examples", "select_model"]

TOLD = ("asked", "accepted", "rejected", "dropped", "drafts", "prompt_tokens", "completion_tokens")


def estimate_job(
    request: dict[str, Any],
    files: Mapping[str, Path],
    model_path: str,
    cluster: Mapping[str, float],
    throughput: Throughput | None,
) -> dict[str, Any]:
    """Prepare the job in a folder that is thrown away, and count its work. Raises PrepareError."""
    with tempfile.TemporaryDirectory() as folder:
        # A teacher costs money: an estimate asks none.
        unasked = ("teacher", "documents", "more_examples")
        asked = {k: v for k, v in request.items() if k not in unasked}
        if request.get("teacher") is not None and request.get("num_examples") != 0:
            asked["num_examples"] = AUTO  # the solver's solutions stand for the teacher's, if any
        prepared = prepare(asked, Path(folder), files, model_path, cluster)
        spec = load_spec(Path(folder) / "spec.json")
        notes, resolved = list(prepared.notes), dict(prepared.resolved)
        if (more := request.get("more_examples")) is not None:
            more = MoreExamplesSpec.model_validate(more)
            if spec.srl is not None:
                spec = spec.model_copy(update={"more_examples": more})
                by_solver = request.get("teacher") is None
                _check_askable(read_rows(spec.data.train), spec.grader, by_solver=by_solver)
                resolved |= {"more_examples": resolved_more_examples(spec)}
            elif request.get("num_examples") == 0:
                raise no_srl_for_more_examples()
            else:
                notes.append(
                    "not counted: srl, more_examples and srl_2, whose first expert steps are the "
                    "teacher's to write"
                )
        model = load_model_at_hand(model_path)
        rows = rows_by_use(spec)
        parts = estimate_parts(
            spec,
            rows,
            model.facts,
            PromptRenderer(model.tokenizer, spec.prompt).render,
            model.count_tokens,
        )
    return {
        "object": "fine_tuning.estimate",
        "model": request["model"],
        "steps_planned": steps_planned(spec, rows["training"]),
        **estimate(parts, throughput),
        "resolved": resolved,
        "notes": notes,
    }


def rows_by_use(spec: JobSpec) -> dict[str, list[Any]]:
    """A prepared job's rows."""
    found = {"training": read_rows(spec.data.train), "validation": read_rows(spec.data.valid)}
    if spec.data.heldout is not None:
        found["heldout"] = read_rows(spec.data.heldout)
    return found


def generate_examples(
    path: Path,
    num_examples: int,
    grader: Mapping[str, Any] | None,
    seed: int,
    teacher: Mapping[str, Any] | None = None,
    journal: Path | None = None,
    deadline_s: float | None = None,
    documents: Sequence[Path] = (),
    teacher_path: str | None = None,
    watch: Path | None = None,
    policy: Mapping[str, Any] | None = None,
    mode: AllocationMode = "uniform",
    cluster: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Have rows solved, by the teacher or the solver; {"rows": whole rows, "summary": a sentence}.

    `journal` keeps what a teacher wrote: the same call again asks for the rest only. After
    `deadline_s` a teacher is asked for nothing more, and what is there is returned.
    `teacher_path` is where the model of a teacher on the cluster's own engines lies. `watch` is a
    folder: how far a teacher is stands in its PROGRESS, and a file CANCEL there ends the asking.
    `policy`: "path", "model", "num_problems" and "num_samples" of a model to measure on the rows
    first; `mode` says whether its failures decide how examples are shared; `cluster` is what Ray
    has for its engines.

    Raises PrepareError when no row can be solved or no solution was verified.
    """
    started_s = time.monotonic()
    data = read_rows_of({"training": path})
    rows = data.rows["training"]
    if teacher is None:
        _check_family(rows)
    judge = parse_grader(dict(grader)) if grader else find_grader(data)
    outcomes = None
    if policy is not None:
        _check_askable(rows, judge, by_solver=teacher is None)  # before anything is sampled
        if watch is not None:
            _say(watch, {"doing": "sampling the policy", **dict.fromkeys(TOLD, 0)})
        kept = journal and journal.with_suffix(MEASURED)
        cancelled = (watch / CANCEL).exists if watch is not None else lambda: False
        asked = PolicySampling(rows, path, policy, judge, seed, cluster or {}, cancelled)
        outcomes = measured_once(kept, asked)
    if deadline_s is not None:
        deadline_s = max(0.0, deadline_s - (time.monotonic() - started_s))
    spec = None if teacher is None else parse_teacher(teacher)
    try:
        made = write_examples(
            rows,
            spec,
            num_examples,
            grader=judge,
            seed=seed,
            journal=journal,
            deadline_s=deadline_s,
            documents=read_documents(documents),
            model_path=teacher_path,
            tell=None if watch is None else lambda made: _tell(watch, made.asked, spec),
            cancelled=None if watch is None else (watch / CANCEL).exists,
            mode=mode,
            outcomes=outcomes,
        )
    except NothingToAskError as error:
        raise PrepareError("nothing_to_solve", f"{error}.", "training_file", []) from None
    except TeacherStartError as error:
        raise PrepareError("teacher_failed", f"{error}.", "teacher", []) from None
    except JournalError:
        said = "an earlier call of this kind was measured or asked otherwise; change `seed`"
        raise PrepareError("earlier_call_differs", said, "seed", []) from None
    return _answer(rows, made, spec) | ({} if outcomes is None else {"policy": _told_of(made)})


def _check_askable(rows: Sequence[Row], judge: Any, *, by_solver: bool) -> None:
    try:
        askable_rows(rows, judge, by_solver=by_solver)
    except NothingToAskError as error:
        raise PrepareError("nothing_to_solve", f"{error}.", "training_file", []) from None


def _check_family(rows: Sequence[Row]) -> None:
    try:
        solve_rows(rows, 1)
    except UnknownFamilyError as error:
        raise PrepareError("unknown_problem_family", str(error), "training_file", []) from None


def _answer(rows: Sequence[Row], made: Generated, spec: TeacherSpec | None) -> dict[str, Any]:
    """The accepted rows and the counts. Raises PrepareError when there are none."""
    found = made.collected
    if not found.solutions:
        code = "teacher_failed" if found.stopped and spec else "no_verified_solution"
        param = "teacher" if spec else "training_file"
        raise PrepareError(code, f"{found.describe()}.", param, [])
    solutions = found.solutions
    written = [
        as_json(with_solution(row, solutions[row.id])) | {"provenance": made.provenance[row.id]}
        for row in rows
        if row.id in solutions
    ]
    counts = found.summary()
    if spec is not None and spec.price is not None:
        tokens = counts["prompt_tokens"], counts["completion_tokens"]
        counts["cost"] = spec.price.cost(*tokens)  # of the rejected ones too
    return {
        "rows": written,
        "num_rejected": counts["rejected"],
        "num_unknown": counts["dropped"],
        "summary": found.describe(),
        **({"teacher": counts} if spec else {}),
    }


def _told_of(made: Generated) -> dict[str, Any]:
    """Where the policy stands, and what followed from it."""
    return {
        "skills": {skill: asdict(one) for skill, one in made.standings.items()},
        "planned": made.planned,
        "left_out": made.left_out,
    }


def _tell(watch: Path, asked: Sequence[Asked], spec: TeacherSpec | None) -> None:
    """Write how far it is; whoever reads sees this state or an earlier one, whole."""
    counts = Collected(list(asked)).summary()
    told = {"doing": "asking", **{name: counts[name] for name in TOLD}}
    if spec is not None and spec.price is not None:
        told["cost"] = spec.price.cost(counts["prompt_tokens"], counts["completion_tokens"])
    _say(watch, told)


def _say(watch: Path, told: Mapping[str, Any]) -> None:
    hidden = watch / f".{PROGRESS}"
    hidden.write_text(json.dumps(told), encoding="utf-8")
    hidden.replace(watch / PROGRESS)


def estimate_examples(
    path: Path,
    num_examples: int,
    grader: Mapping[str, Any] | None,
    seed: int,
    teacher: Mapping[str, Any],
    documents: Sequence[Path] = (),
    teacher_path: str | None = None,
) -> dict[str, Any]:
    """What `generate_examples` with a teacher would take. Nobody is asked. Raises PrepareError."""
    data = read_rows_of({"training": path})
    try:
        return estimate_teacher(
            data.rows["training"],
            parse_teacher(teacher),
            num_examples,
            grader=parse_grader(dict(grader)) if grader else find_grader(data),
            seed=seed,
            documents=read_documents(documents),
            count_tokens=load_model_at_hand(teacher_path).count_tokens if teacher_path else None,
        )
    except NothingToAskError as error:
        raise PrepareError("nothing_to_solve", f"{error}.", "training_file", []) from None
