"""CollaborationOrchestrator: a retriever, a teacher and a verifier write an expert solution.

    row -> passages that matter -> draft -> verified? -> accepted
                                     ^          | no, with reasons
                                     +----------+  at most `max_rounds` drafts

A trajectory that the verifier did not accept never leaves here. Every problem that was asked ends
as accepted, rejected (the last draft was judged and is wrong) or dropped (no verdict: the teacher
or the grader failed), and is counted once.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rollout.types import InferenceProtocol, Problem, Verifier
from rollout.verifiers.answer import normalise_answer
from train.data import Row
from train.experts.draft import DraftError, ask, ask_again, ends_with_answer, read_draft
from train.experts.families import Solution
from train.experts.journal import Journal
from train.experts.retriever import Retriever
from train.experts.solver import PASSED, as_rollout
from train.experts.teachers import Draft, Teacher, TeacherError

Outcome = Literal["accepted", "rejected", "dropped"]
# verify(row, solution) -> why it must not be used, None when it may. Raises NoVerdictError.
Verify = Callable[[Row, Solution], str | None]
MAX_SHOWN = 5


class NoVerdictError(RuntimeError):
    """The verifier itself failed: nothing is known about the solution."""


@dataclass(frozen=True)
class Asked:
    """What became of one problem."""

    row_id: str
    outcome: Outcome
    reason: str | None  # of the last rejection, or of the drop
    drafts: int  # that the teacher wrote
    repaired: bool  # accepted after a rejection
    prompt_tokens: int
    completion_tokens: int
    solution: Solution | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass
class Collected:
    """What became of all problems that were asked."""

    asked: list[Asked] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        """Problems that ended so."""
        return sum(one.outcome == outcome for one in self.asked)

    @property
    def solutions(self) -> dict[str, Solution]:
        """The accepted ones, by row id."""
        return {one.row_id: one.solution for one in self.asked if one.solution is not None}

    def summary(self) -> dict[str, Any]:
        """Counts as JSON values: asked = accepted + rejected + dropped."""
        failed = Counter(one.reason for one in self.asked if one.outcome != "accepted")
        return {
            "asked": len(self.asked),
            **{name: self.count(name) for name in ("accepted", "rejected", "dropped")},
            "repairs": sum(one.repaired for one in self.asked),
            "drafts": sum(one.drafts for one in self.asked),
            "prompt_tokens": sum(one.prompt_tokens for one in self.asked),
            "completion_tokens": sum(one.completion_tokens for one in self.asked),
            "reasons": dict(failed.most_common(MAX_SHOWN)),
        }

    def describe(self) -> str:
        """One sentence for people."""
        told = self.summary()
        text = (
            f"the teacher was asked for {told['asked']} solutions: {told['accepted']} verified "
            f"({told['repairs']} after a repair), {told['rejected']} rejected, "
            f"{told['dropped']} dropped"
        )
        shown = "; ".join(f"{n}x {reason}" for reason, n in told["reasons"].items())
        return f"{text} ({shown})" if shown else text


class CollaborationOrchestrator:
    """Asks a teacher until enough solutions are verified, or every row was asked."""

    def __init__(
        self,
        teacher: Teacher,
        verify: Verify,
        retriever: Retriever | None = None,
        *,
        max_rounds: int = 3,
        repair: Literal["reasons", "blind"] = "reasons",
        concurrency: int = 8,
        seed: int = 0,
    ) -> None:
        self._teacher, self._verify, self._retriever = teacher, verify, retriever
        self._max_rounds, self._repair = max_rounds, repair
        self._concurrency, self._seed = concurrency, seed

    def collect(
        self,
        rows: Sequence[Row],
        count: int | None = None,
        journal: Path | None = None,
        tell: Callable[[Collected], None] | None = None,
    ) -> Collected:
        """Ask for solutions of `rows`, in an order that the seed fixes, until `count` are verified.

        `journal` keeps what is known over a kill: the same call goes on there. Raises JournalError
        when the file is another run's.
        """
        order = list(rows)
        random.Random(self._seed).shuffle(order)
        book = Journal(journal, self._run_of(order)) if journal is not None else None
        collected = Collected([_from_json(entry) for entry in book.entries] if book else [])
        known = {one.row_id for one in collected.asked}
        waiting = iter([row for row in order if row.id not in known])
        wanted = len(order) if count is None else count
        try:
            with ThreadPoolExecutor(self._concurrency, thread_name_prefix="teacher") as pool:
                for one in self._asked(pool, waiting, wanted, collected):
                    if book is not None:
                        book.add(_to_json(one))
                    collected.asked.append(one)
                    if tell is not None:
                        tell(collected)
        finally:
            if book is not None:
                book.close()
        return collected

    def _asked(
        self,
        pool: ThreadPoolExecutor,
        waiting: Iterator[Row],
        wanted: int,
        collected: Collected,
    ) -> Iterator[Asked]:
        """Ask for no more at once than are still missing: none is paid for and thrown away."""
        running: set[Future[Asked]] = set()
        while True:
            missing = wanted - collected.count("accepted")
            while len(running) < min(self._concurrency, missing):
                if (row := next(waiting, None)) is None:
                    break
                running.add(pool.submit(self._solve, row))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()

    def _solve(self, row: Row) -> Asked:
        """One problem, from the first draft to its end."""
        passages = self._retriever.passages(row.problem_text) if self._retriever else []
        first = ask(row, passages)
        messages, reason, drafts = first, None, []
        for round_number in range(self._max_rounds):
            try:
                draft = self._teacher.write(messages, self._seed_of(row, round_number))
            except TeacherError as error:
                return _ended(row, "dropped", f"teacher: {error.reason}", drafts)
            drafts.append(draft)
            try:
                solution = self._verified(row, draft)
            except DraftError as error:
                reason = str(error)
                messages = (
                    ask_again(first, draft.text, reason) if self._repair == "reasons" else first
                )
                continue
            except NoVerdictError:
                return _ended(row, "dropped", "verifier: no verdict", drafts)
            provenance = {
                "teacher": self._teacher.name,
                "model": draft.model,
                "prompt_sha256": _digest(messages),
                "drafts": len(drafts),
                "verified_by": "reference answer and grader",
                "prompt_tokens": sum(d.prompt_tokens for d in drafts),
                "completion_tokens": sum(d.completion_tokens for d in drafts),
            }
            return _ended(row, "accepted", reason, drafts, solution, provenance)
        return _ended(row, "rejected", reason, drafts)

    def _verified(self, row: Row, draft: Draft) -> Solution:
        """The solution in the form that the grader accepts. Raises DraftError, NoVerdictError."""
        solution = read_draft(draft.text)
        fault = self._verify(row, solution)
        if fault is None:
            return solution
        closed = ends_with_answer(solution)
        if self._verify(row, closed) is None:
            return closed
        raise DraftError(fault)

    def _seed_of(self, row: Row, round_number: int) -> int:
        return int(_digest([self._seed, row.id, round_number])[:7], 16)

    def _run_of(self, order: Sequence[Row]) -> dict[str, Any]:
        """What makes two runs the same."""
        return {
            "teacher": self._teacher.name,
            "max_rounds": self._max_rounds,
            "repair": self._repair,
            "seed": self._seed,
            "rows_sha256": _digest([[row.id, row.problem_text] for row in order]),
        }


def verifier_of(grader: Verifier | None, protocol: InferenceProtocol) -> Verify:
    """Checks the final answer against the row's, and the whole by the job's grader.

    The reasons never name the reference answer: who is told it can write a way to it.
    """

    def verify(row: Row, solution: Solution) -> str | None:
        reference = row.reference_answer
        if reference is not None and normalise_answer(reference) != normalise_answer(
            solution.answer
        ):
            return f"the answer {solution.answer!r} is wrong"
        if grader is None:
            return None
        problem = Problem(row.id, row.problem_text, reference_answer=reference, item=row.item)
        try:
            verdict = grader.verify(problem, as_rollout(row.id, solution, protocol))
        except Exception as error:
            # A user's grader may fail in any way; that is no verdict, and counted as such.
            raise NoVerdictError(f"the grader failed: {error}") from error
        if verdict.reward <= PASSED:
            return f"the checker gives the solution only {verdict.reward:g}"
        return None

    return verify


def verifiable(rows: Sequence[Row], grader: Verifier | None) -> list[Row]:
    """The rows on which `verifier_of(grader)` can tell right from wrong."""
    needs_answer = grader is None or getattr(grader, "needs_reference_answer", False)
    return [row for row in rows if row.reference_answer is not None or not needs_answer]


def _ended(
    row: Row,
    outcome: Outcome,
    reason: str | None,
    drafts: Sequence[Draft],
    solution: Solution | None = None,
    provenance: dict[str, Any] | None = None,
) -> Asked:
    accepted = outcome == "accepted"
    return Asked(
        row_id=row.id,
        outcome=outcome,
        reason=None if accepted else reason,
        drafts=len(drafts),
        repaired=accepted and reason is not None,
        prompt_tokens=sum(draft.prompt_tokens for draft in drafts),
        completion_tokens=sum(draft.completion_tokens for draft in drafts),
        solution=solution,
        provenance=provenance or {},
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


def _to_json(one: Asked) -> dict[str, Any]:
    return asdict(one)


def _from_json(entry: dict[str, Any]) -> Asked:
    raw = entry.get("solution")
    solution = raw and Solution(
        raw["family"], tuple(raw["steps"]), raw["answer"], tuple(raw["thoughts"])
    )
    return Asked(**{**entry, "solution": solution})
