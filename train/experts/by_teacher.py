"""Expert steps for rows that have none, written by a teacher or the solver, in one call.

Rows that carry steps already are shown to the teacher as solved examples, and so are passages of
the user's documents, where they share words with the problem.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rollout.types import InferenceProtocol, Verifier
from train.data import Row
from train.experts.collected import Collected
from train.experts.engine_teacher import EngineTeacherSpec, engine_teacher
from train.experts.generator import DynamicExampleGenerator, Generated
from train.experts.orchestrator import CollaborationOrchestrator
from train.experts.outcomes import Outcomes
from train.experts.retriever import Retriever, solved_examples, split_document
from train.experts.source import ProgrammaticSolver, TrajectorySource
from train.experts.teachers import EndpointTeacher, EndpointTeacherSpec, Teacher, repair_of
from train.experts.verification import verifiable, verifier_of
from train.spec import AllocationMode

# Of a teacher's settings, those that change no draft; how repairs are asked for is told beside.
NOT_THE_TEXT = {"concurrency", "limits", "price", "repair"}
TeacherSpec = EndpointTeacherSpec | EngineTeacherSpec


class NothingToAskError(ValueError):
    """No row is without steps and can be verified."""


def solve_by_teacher(
    rows: Sequence[Row], spec: TeacherSpec, count: int | None = None, **options: Any
) -> Collected:
    """What became of all rows that `write_examples` asked a teacher for."""
    return write_examples(rows, spec, count, **options).collected


def write_examples(
    rows: Sequence[Row],
    spec: TeacherSpec | None,
    count: int | None = None,
    *,
    grader: Verifier | None = None,
    protocol: InferenceProtocol = "stepwise",
    seed: int = 0,
    journal: Path | None = None,
    deadline_s: float | None = None,
    documents: Sequence[str] = (),
    held_out: Sequence[Row] = (),
    model_path: str | None = None,
    tell: Callable[[Generated], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    mode: AllocationMode = "uniform",
    outcomes: Outcomes | None = None,
) -> Generated:
    """Have at most `count` rows solved; None: all.

    See `DynamicExampleGenerator.generate` for `journal`, `held_out`, `deadline_s`, `tell`,
    `cancelled`, `mode` and `outcomes`; `documents` are whole texts. `model_path` is where the model
    of a teacher on the cluster's own engines lies. Without `spec` the programmatic solver writes.
    Raises NothingToAskError, JournalError, TeacherStartError.
    """
    askable = askable_rows(rows, grader, by_solver=spec is None)
    solved = [row for row in rows if row.expert_steps]
    with _source(rows, spec, grader, protocol, seed, documents, model_path) as source:
        generator = DynamicExampleGenerator(
            source, mode=mode, price=spec.price if spec else None, seed=seed
        )
        return generator.generate(
            [*solved, *askable],
            len(askable) if count is None else count,
            outcomes=outcomes,
            held_out=held_out,
            journal=journal,
            deadline_s=deadline_s,
            tell=tell,
            cancelled=cancelled,
        )


@contextmanager
def _source(
    rows: Sequence[Row],
    spec: TeacherSpec | None,
    grader: Verifier | None,
    protocol: InferenceProtocol,
    seed: int,
    documents: Sequence[str],
    model_path: str | None,
) -> Iterator[TrajectorySource]:
    """Whoever writes, until the context ends."""
    if spec is None:
        yield ProgrammaticSolver(grader, protocol)
        return
    passages = [passage for text in documents for passage in split_document(text)]
    with teacher_of(spec, model_path) as teacher:
        yield CollaborationOrchestrator(
            teacher,
            verifier_of(grader, protocol),
            Retriever([*solved_examples(rows), *passages]),
            max_rounds=spec.max_rounds,
            repair=repair_of(spec.repair, spec.temperature),
            concurrency=spec.concurrency,
            seed=seed,
            run={
                "spec": spec.model_dump(mode="json", exclude=NOT_THE_TEXT),
                "grader": as_json(grader),
                "protocol": protocol,
                "documents": passages,
                "verified_by": "reference answer"
                if grader is None
                else f"grader {kind_of(grader)}",
            },
        )


def askable_rows(
    rows: Sequence[Row], grader: Verifier | None, *, by_solver: bool = False
) -> list[Row]:
    """Those without steps whose solutions can be verified. Raises NothingToAskError.

    The programmatic solver knows the answer of a row that has none.
    """
    bare = [row for row in rows if not row.expert_steps]
    if askable := bare if by_solver else verifiable(bare, grader):
        return list(askable)
    raise NothingToAskError(
        f"the teacher's solutions could not be verified: none of the {len(bare)} rows without "
        "expert_steps has a `reference_answer`; add it, or give a grader that needs none"
        if bare
        else "every row has expert_steps already; add rows without"
    )


def as_json(grader: Verifier | None) -> Any:
    """What a grader is, as JSON values; of one that is no settings record, its class."""
    if isinstance(grader, BaseModel):
        return grader.model_dump(mode="json")
    return None if grader is None else kind_of(grader)


def kind_of(grader: Verifier) -> str:
    """The grader's type, as in a request."""
    return str(getattr(grader, "type", type(grader).__name__))


def teacher_of(spec: TeacherSpec, model_path: str | None = None) -> AbstractContextManager[Teacher]:
    """The teacher that a specification describes, until the context ends."""
    if isinstance(spec, EngineTeacherSpec):
        return engine_teacher(spec, model_path)
    return nullcontext(EndpointTeacher(spec))


def parse_teacher(raw: Mapping[str, Any]) -> TeacherSpec:
    """The specification of either kind, by its `type`. Raises pydantic's ValidationError."""
    kind = EngineTeacherSpec if raw.get("type") == "engine" else EndpointTeacherSpec
    return kind.model_validate(raw)
