"""Expert steps for rows that have none, written by a teacher and verified, in one call.

Rows that carry steps already are shown to the teacher as solved examples, where they help.
"""

from collections.abc import Sequence
from pathlib import Path

from rollout.types import InferenceProtocol, Verifier
from train.data import Row
from train.experts.orchestrator import (
    CollaborationOrchestrator,
    Collected,
    verifiable,
    verifier_of,
)
from train.experts.retriever import Retriever, solved_examples
from train.experts.teachers import EndpointTeacher, EndpointTeacherSpec


class NothingToAskError(ValueError):
    """No row is without steps and can be verified."""


def solve_by_teacher(
    rows: Sequence[Row],
    spec: EndpointTeacherSpec,
    count: int | None = None,
    *,
    grader: Verifier | None = None,
    protocol: InferenceProtocol = "stepwise",
    seed: int = 0,
    journal: Path | None = None,
) -> Collected:
    """Have at most `count` rows solved; None: all. Raises NothingToAskError, JournalError."""
    bare = [row for row in rows if not row.expert_steps]
    askable = verifiable(bare, grader)
    if not askable:
        raise NothingToAskError(
            f"the teacher's solutions could not be verified: none of the {len(bare)} rows without "
            "expert_steps has a `reference_answer`; add it, or give a grader that needs none"
            if bare
            else "every row has expert_steps already; leave the teacher out"
        )
    orchestrator = CollaborationOrchestrator(
        EndpointTeacher(spec),
        verifier_of(grader, protocol),
        Retriever(solved_examples(rows)),
        max_rounds=spec.max_rounds,
        concurrency=spec.concurrency,
        seed=seed,
    )
    return orchestrator.collect(askable, count, journal)
