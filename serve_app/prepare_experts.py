"""What the rows themselves lack: a grader, reference answers, expert steps.

A given grader is taken; otherwise one is inferred from the rows, or from what the programmatic
solver writes for them. The solver fills in what it can verify, and its work is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.verifiers.registry import parse_grader
from serve_app.prepare_error import PrepareError
from serve_app.prepare_rows import JobRows
from serve_app.request_types import AUTO
from serve_app.schemas import CreateJob
from serve_app.stage_schemas import TeacherRequest
from train.data import Row
from train.experts.by_teacher import NothingToAskError, solve_by_teacher
from train.experts.engine_teacher import TeacherStartError
from train.experts.journal import JournalError
from train.experts.solver import UnknownFamilyError, solve_rows, with_solution
from train.grader_inference import NoGraderError, infer_grader

NUM_EXAMPLES = 48  # rows that get expert steps where the client names no number
NUM_LOOKED_AT = 48  # solutions that show where an answer stands


@dataclass(frozen=True)
class ExpertPlan:
    """What a request says about expert steps."""

    wanted: bool  # a stage would learn from steps
    required: bool  # such a stage was asked for by name
    num_examples: int  # rows to solve where no row has steps; 0: none
    must_solve: bool  # a number was named: an unknown family is an error

    @classmethod
    def of(cls, job: CreateJob) -> "ExpertPlan":
        """From a create call."""
        alone = job.kind == "srl"
        required = alone or job.asks("srl") or job.asks("sft")
        asked = job.num_examples
        if asked is None:  # problems with a method of their own are left as they are
            asked = AUTO if required or job.method is None else 0
        return cls(
            wanted=required or not job.disables("srl"),
            required=required,
            num_examples=NUM_EXAMPLES if asked == AUTO else int(asked),
            must_solve=asked not in (AUTO, 0),
        )


def given_grader(job: CreateJob) -> Any:
    """The grader that the method names, or None."""
    method = job.method
    if method is None:
        return None
    part = method.reinforcement or method.srl
    return part.grader if part else None


def choose_grader(job: CreateJob, data: JobRows) -> Any:
    """The job's grader: given, or inferred. Fills in reference answers that it needs."""
    grader = given_grader(job)
    if grader is None or getattr(grader, "needs_reference_answer", False):
        _fill_answers(data)
    if grader is not None:
        return grader
    return find_grader(data, "method.srl.grader" if job.kind == "srl" else "method")


def find_grader(data: JobRows, param: str = "grader") -> Any:
    """Infer the grader. Raises PrepareError, naming `param`, when no row has an answer."""
    try:
        shown, by_solver = _shown(data.rows["training"])
        inferred = infer_grader(shown)
    except NoGraderError as error:
        raise PrepareError("missing_grader", str(error), param, []) from None
    whose = " from the solver's solutions" if by_solver else ""
    data.notes.append(f"grader inferred{whose}: {inferred.reason}")
    return parse_grader(inferred.grader)


def _shown(rows: Sequence[Row]) -> tuple[list[Row], bool]:
    """(rows for the grader's inference, whether the solver's solutions are among them).

    They are where no row shows a solution of its own.
    """
    if any(row.expert_steps for row in rows):
        return list(rows), False
    try:
        solved = solve_rows(rows, NUM_LOOKED_AT).solutions
    except UnknownFamilyError:
        return list(rows), False
    by_id = {row.id: row for row in rows}
    return [*rows, *(with_solution(by_id[i], s) for i, s in solved.items())], bool(solved)


def _fill_answers(data: JobRows) -> None:
    """Give rows without `reference_answer` the solver's, where it knows the family."""
    filled = 0
    for use, rows in data.rows.items():
        bare = [row for row in rows if row.reference_answer is None]
        if not bare:
            continue
        try:
            found = solve_rows(bare).solutions
        except UnknownFamilyError:
            continue
        data.rows[use] = [
            with_solution(row, found[row.id], steps=False) if row.id in found else row
            for row in rows
        ]
        filled += len(found)
    if filled:
        data.notes.append(f"reference answers: the solver wrote them for {filled} rows")


def add_expert_steps(
    job: CreateJob,
    data: JobRows,
    grader: Any,
    protocol: Any,
    seed: int,
    journal: Path,
    teacher_path: str | None = None,
    documents: Sequence[Path] = (),
) -> bool:
    """Solve training rows, by the teacher, or where none has steps; True when rows have steps then.

    `journal` keeps what a teacher wrote over a kill; `teacher_path` is where the model of a teacher
    on the cluster's own engines lies; `documents` are for it to read.
    Raises PrepareError when a stage that needs steps was asked for and nobody can write them.
    """
    plan, rows = ExpertPlan.of(job), data.rows["training"]
    if job.teacher is not None and job.num_examples != 0:
        texts = read_documents(documents)
        return _ask_teacher(
            job.teacher, plan, data, grader, protocol, seed, journal, teacher_path, texts
        )
    if any(row.expert_steps for row in rows):
        return True
    if not plan.wanted or not plan.num_examples:
        if plan.required:
            raise PrepareError(
                "invalid_training_file",
                "No row has `expert_steps`, which SRL and SFT learn from; add them to some rows, "
                "or set num_examples to have the solver write them.",
                "training_file",
                [],
            )
        return False
    try:
        solved = solve_rows(rows, plan.num_examples, grader=grader, protocol=protocol, seed=seed)
    except UnknownFamilyError as error:
        if not (plan.required or plan.must_solve):
            data.notes.append(f"no SRL: {error}")
            return False
        raise PrepareError(
            "invalid_training_file",
            f"No row has `expert_steps`, and {error}.",
            "num_examples" if plan.must_solve else "training_file",
            [],
        ) from None
    data.rows["training"] = [
        with_solution(row, solved.solutions[row.id]) if row.id in solved.solutions else row
        for row in rows
    ]
    data.notes.append(f"expert steps: {solved.describe()}")
    if not solved.solutions and (plan.required or plan.must_solve):
        raise PrepareError("invalid_training_file", solved.describe() + ".", "training_file", [])
    return bool(solved.solutions)


def read_documents(documents: Sequence[Path]) -> list[str]:
    """The documents' texts. Raises PrepareError, naming the first that is none."""
    texts = []
    for k, path in enumerate(documents):
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise PrepareError(
                "invalid_document",
                f"documents[{k}] is not UTF-8 text: {error}; upload it as plain text",
                "documents",
                [],
            ) from None
    return texts


def _ask_teacher(
    teacher: TeacherRequest,
    plan: ExpertPlan,
    data: JobRows,
    grader: Any,
    protocol: Any,
    seed: int,
    journal: Path,
    teacher_path: str | None,
    documents: Sequence[str],
) -> bool:
    """Have the teacher write steps for rows that have none."""
    rows = data.rows["training"]
    try:
        found = solve_by_teacher(
            rows,
            teacher,
            plan.num_examples or NUM_EXAMPLES,
            grader=grader,
            protocol=protocol,
            seed=seed,
            journal=journal,
            documents=documents,
            held_out=[*data.rows.get("validation", ()), *data.rows.get("heldout", ())],
            model_path=teacher_path,
        )
    except NothingToAskError as error:
        raise PrepareError("invalid_training_file", f"{error}.", "teacher", []) from None
    except TeacherStartError as error:
        raise PrepareError("teacher_failed", f"{error}.", "teacher", []) from None
    except JournalError:  # of a preparation that an older version of the service began
        said = "The teacher was asked in another way before; create the job again."
        raise PrepareError("teacher_failed", said, "teacher", []) from None
    data.notes.append(f"expert steps: {found.describe()}")
    solutions = found.solutions
    data.rows["training"] = [
        with_solution(row, solutions[row.id]) if row.id in solutions else row for row in rows
    ]
    has_steps = any(row.expert_steps for row in data.rows["training"])
    if not has_steps:
        raise PrepareError("teacher_failed", f"{found.describe()}.", "teacher", [])
    return True
