"""Where verified expert trajectories come from: a teacher's orchestrator, or the solver."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from rollout.types import InferenceProtocol, Verifier
from train.data import Row
from train.experts.collected import Asked, Collected, ended
from train.experts.families import solve
from train.experts.solver import fault

SOLVER, WRITER = "solver", "the solver"


class TrajectorySource(Protocol):
    """Has rows solved. `CollaborationOrchestrator.collect` says what the arguments mean."""

    def collect(
        self,
        rows: Sequence[Row],
        count: int | None = None,
        journal: Path | None = None,
        tell: Callable[[Collected], None] | None = None,
        deadline_s: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Collected:
        """Have rows solved until `count` solutions are verified, or every row was asked."""
        ...


class ProgrammaticSolver:
    """Solves problems of known families; instant and the same every time, so it keeps no journal.

    A row of an unknown family counts as dropped.
    """

    def __init__(self, grader: Verifier | None, protocol: InferenceProtocol) -> None:
        self._grader = grader
        self._protocol: InferenceProtocol = protocol

    def collect(
        self,
        rows: Sequence[Row],
        count: int | None = None,
        journal: Path | None = None,
        tell: Callable[[Collected], None] | None = None,
        deadline_s: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Collected:
        """Solve rows in their order until `count` are verified."""
        collected, num_accepted = Collected(writer=WRITER), 0
        for row in rows:
            if count is not None and num_accepted >= count:
                break
            if cancelled is not None and cancelled():
                collected.stopped = "stopped: the call was cancelled"
                break
            one = self._solve(row)
            collected.asked.append(one)
            num_accepted += one.outcome == "accepted"
        if tell is not None:  # at once: it takes no time worth telling of
            tell(collected)
        return collected

    def _solve(self, row: Row) -> Asked:
        solution = solve(row.problem_text)
        if solution is None:
            return ended(row, "dropped", "solver: unknown family", [])
        if reason := fault(row, solution, self._grader, self._protocol):
            return ended(row, "rejected", reason, [])
        told = {"teacher": SOLVER, "model": solution.family, "drafts": 0}
        return ended(row, "accepted", None, [], solution, told)
