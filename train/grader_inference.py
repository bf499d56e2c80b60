"""Which grader fits rows that came without one. Pure: reads answers and expert steps.

The expert's last step shows where an answer stands; where no row has steps, the answers' form
decides between mathematics and text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rollout.verifiers.answer import AnswerVerifier, normalise_answer
from train.data import Row

# In front of an answer at the end of a step, by the pattern that reads what follows.
DELIMITERS: dict[str, str] = {
    "=": r"=\s*([^=]+?)\s*$",
    "answer is": r"(?i:answer is):?\s*(.+?)\s*$",
    "answer:": r"(?i:answer:)\s*(.+?)\s*$",
    "####": r"####\s*(.+?)\s*$",
    "->": r"->\s*([^>]+?)\s*$",
    "→": r"→\s*([^→]+?)\s*$",
    ":": r":\s*([^:]+?)\s*$",
    "is": r"\bis\s+(.+?)\s*$",
}
# A number, a fraction, a percentage or an amount; or anything that is written in LaTeX.
_NUMBER = re.compile(r"[-+]?[$€£]?\s*\d[\d,. ]*(\s*/\s*\d+)?\s*%?")
_LATEX = re.compile(r"\\[a-zA-Z]+|\^|\$.+\$|_\{")


class NoGraderError(ValueError):
    """No grader can be inferred; the message says what to add."""


@dataclass(frozen=True)
class InferredGrader:
    """A grader, and why it."""

    grader: dict[str, Any]  # as a job file names it
    reason: str


def infer_grader(rows: Sequence[Row]) -> InferredGrader:
    """Infer the grader of whole solutions. Raises NoGraderError when no row has an answer."""
    answered = [row for row in rows if row.reference_answer is not None]
    if not answered:
        raise NoGraderError(
            "no grader was given and no row has a `reference_answer` to infer one from: add "
            "`reference_answer` to the rows, or give a grader, such as "
            '{"type": "python", "name": "mine", "source": "def grade(sample, item): ..."}'
        )
    shown = [row for row in answered if row.expert_steps]
    return _from_steps(shown) if shown else _from_answers(answered)


def _from_steps(rows: Sequence[Row]) -> InferredGrader:
    """The answer stands in the expert's last step."""
    count = f"of {len(rows)} expert solutions"
    if all("\\boxed" in row.expert_steps[-1] for row in rows):
        return InferredGrader({"type": "math"}, f"math: the last step {count} holds \\boxed")
    if _all_read(rows, None):
        reason = f"answer: the last step {count} equals the reference answer"
        return InferredGrader({"type": "answer"}, reason)
    for delimiter, pattern in DELIMITERS.items():
        if _all_read(rows, pattern):
            reason = (
                f"answer: the last step {count} ends with {delimiter!r} and the reference answer"
            )
            return InferredGrader({"type": "answer", "pattern": pattern}, reason)
    return _from_answers(rows)


def _all_read(rows: Sequence[Row], pattern: str | None) -> bool:
    """True when the grader reads every row's reference answer in its last expert step."""
    grader = AnswerVerifier(pattern=pattern)
    for row in rows:
        read = grader.extract(row.expert_steps[-1])
        wanted = normalise_answer(row.reference_answer or "")
        if read is None or normalise_answer(read) != wanted:
            return False
    return True


def _from_answers(rows: Sequence[Row]) -> InferredGrader:
    answers = [row.reference_answer or "" for row in rows]
    if all(_NUMBER.fullmatch(answer.strip()) or _LATEX.search(answer) for answer in answers):
        reason = (
            f"math: all {len(rows)} reference answers are numbers or LaTeX; an answer counts when "
            "it is boxed, follows 'the answer is', or is the whole last line"
        )
        return InferredGrader({"type": "math"}, reason)
    reason = (
        f"answer: the {len(rows)} reference answers are texts; the last line of a solution has to "
        "equal them"
    )
    return InferredGrader({"type": "answer"}, reason)
