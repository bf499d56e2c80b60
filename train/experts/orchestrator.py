"""CollaborationOrchestrator: a retriever, a teacher and a verifier write an expert solution.

    row -> passages that matter -> draft -> verified? -> accepted
                                     ^          | no: again, with the reasons or without
                                     +----------+  at most `max_rounds` drafts

A trajectory that the verifier did not accept never leaves here. Every problem that was asked ends
as accepted, rejected (the last draft was judged and is wrong) or dropped (no verdict: the teacher
or the grader failed), and is counted once.
"""

import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from train.data import Row
from train.experts.collected import Asked, Collected, ended, from_json, to_json
from train.experts.draft import DraftError, ask, ask_again, ends_with_answer, read_draft
from train.experts.families import Solution
from train.experts.journal import Journal
from train.experts.retriever import Retriever
from train.experts.teachers import Draft, Repair, Teacher, TeacherError
from train.experts.verification import NoVerdictError, Verify, agrees

MAX_FAILURES = 8  # of the teacher, one after another, before it is asked for nothing more
TEACHER_FAILED = "teacher: "  # begins the reason of a drop that is the teacher's fault
_log = logging.getLogger(__name__)


class CollaborationOrchestrator:
    """Asks a teacher until enough solutions are verified, or every row was asked."""

    def __init__(
        self,
        teacher: Teacher,
        verify: Verify,
        retriever: Retriever | None = None,
        *,
        max_rounds: int = 3,
        repair: Repair = "blind",
        concurrency: int = 8,
        seed: int = 0,
        run: Mapping[str, Any] | None = None,
    ) -> None:
        """`run` holds what else makes two runs the same, as JSON values: a journal carries it."""
        self._teacher, self._verify, self._retriever = teacher, verify, retriever
        self._max_rounds, self._repair = max_rounds, repair
        self._failures = 0  # of the teacher, since it last wrote something, over all calls
        self._concurrency, self._seed, self._run = concurrency, seed, dict(run or {})

    def collect(
        self,
        rows: Sequence[Row],
        count: int | None = None,
        journal: Path | None = None,
        tell: Callable[[Collected], None] | None = None,
        deadline_s: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Collected:
        """Ask for solutions of `rows`, in an order that the seed fixes, until `count` are verified.

        `journal` keeps what is known over a kill: the same call goes on there, and asks again where
        the teacher had failed. After `deadline_s`, after MAX_FAILURES failures of the teacher one
        after another, and when `cancelled` (asked before every problem) says True, nothing more is
        asked, and `stopped` says so. Raises JournalError when the file is another run's.
        """
        ends_s = None if deadline_s is None else time.monotonic() + deadline_s
        order = list(rows)
        random.Random(self._seed).shuffle(order)
        book = Journal(journal, self._run_of(order)) if journal is not None else None
        collected = Collected(
            [from_json(entry) for entry in book.last_by("row_id")] if book else []
        )
        known = {one.row_id for one in collected.asked if not _teacher_failed(one)}
        waiting = iter([row for row in order if row.id not in known])
        wanted = len(order) if count is None else count
        try:
            with ThreadPoolExecutor(self._concurrency, thread_name_prefix="teacher") as pool:
                for one in self._asked(pool, waiting, wanted, collected, ends_s, cancelled):
                    if book is not None:
                        book.add(to_json(one))
                    collected.asked = [a for a in collected.asked if a.row_id != one.row_id]
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
        ends_s: float | None,
        cancelled: Callable[[], bool] | None,
    ) -> Iterator[Asked]:
        """Ask for no more at once than are still missing: none is paid for and thrown away."""
        running: set[Future[Asked]] = set()
        while True:
            missing = wanted - collected.count("accepted")
            if self._failures >= MAX_FAILURES:
                collected.stopped = f"stopped: the teacher failed {self._failures} times in a row"
            elif ends_s is not None and time.monotonic() >= ends_s and missing > 0:
                collected.stopped = "stopped: the time for this call was used up"
            elif cancelled is not None and missing > 0 and cancelled():
                collected.stopped = "stopped: the call was cancelled"
            while len(running) < min(self._concurrency, missing) and not collected.stopped:
                if (row := next(waiting, None)) is None:
                    break
                running.add(pool.submit(self._solved, row))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                one = future.result()
                self._failures = self._failures + 1 if _teacher_failed(one) else 0
                yield one

    def _solved(self, row: Row) -> Asked:
        """One problem, counted whatever happens."""
        try:
            return self._solve(row)
        except Exception as error:
            # Acceptable: a fault of this row or of our code costs the row, which is counted as
            # dropped with the error's name; the accepted ones are not lost with it.
            _log.exception("row %s was dropped", row.id)
            return ended(row, "dropped", f"error: {type(error).__name__}", [], message=str(error))

    def _solve(self, row: Row) -> Asked:
        """One problem, from the first draft to its end."""
        passages = self._retriever.passages(row.problem_text) if self._retriever else []
        first = ask(row, passages)
        messages, reason, drafts = first, None, []
        for round_number in range(self._max_rounds):
            try:
                draft = self._teacher.write(messages, self._seed_of(row, round_number))
            except TeacherError as error:
                reason = TEACHER_FAILED + error.reason
                return ended(row, "dropped", reason, drafts, message=str(error))
            drafts.append(draft)
            try:
                solution = self._verified(row, draft)
            except DraftError as error:
                reason = str(error)
                messages = (
                    ask_again(first, draft.text, reason) if self._repair == "reasons" else first
                )
                continue
            except NoVerdictError as error:
                return ended(row, "dropped", "verifier: no verdict", drafts, message=str(error))
            provenance = {
                "teacher": self._teacher.name,
                "model": draft.model,
                "prompt_sha256": _digest(messages),
                "drafts": len(drafts),
                "verified_by": self._run.get("verified_by", "verifier"),
                "prompt_tokens": sum(d.prompt_tokens for d in drafts),
                "completion_tokens": sum(d.completion_tokens for d in drafts),
            }
            return ended(row, "accepted", reason, drafts, solution, provenance)
        return ended(row, "rejected", reason, drafts)

    def _verified(self, row: Row, draft: Draft) -> Solution:
        """The solution in the form that the grader accepts. Raises DraftError, NoVerdictError."""
        solution = read_draft(draft.text)
        closed = ends_with_answer(solution)
        fault = self._verify(row, solution)
        if fault is None and not agrees(row, solution) and self._verify(row, closed) is not None:
            fault = f"the line `Answer: {solution.answer}` is not what the steps come to"
        elif fault is not None and self._verify(row, closed) is None:
            return closed
        if fault is not None:
            raise DraftError(fault)
        return solution

    def _seed_of(self, row: Row, round_number: int) -> int:
        return int(_digest([self._seed, row.id, round_number])[:7], 16)

    def _run_of(self, order: Sequence[Row]) -> dict[str, Any]:
        """What makes two runs the same."""
        return {
            "teacher": self._teacher.name,
            "max_rounds": self._max_rounds,
            "repair": self._repair,
            "seed": self._seed,
            "rows_sha256": _digest([[row.id, list(row.messages), row.item] for row in order]),
            **self._run,
        }


def _teacher_failed(one: Asked) -> bool:
    """True of a drop that says nothing about the row: it may be asked again."""
    return one.outcome == "dropped" and str(one.reason).startswith(TEACHER_FAILED)


def _digest(value: Any) -> str:
    return hashlib.sha256(
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ).hexdigest()
