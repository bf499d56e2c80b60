"""Does the job's grader read the same from all turns joined as from the last turn alone?

Some graders judge the whole solution that a reader sees (`sample.output_text`), others only the
last turn. A reader of a chat is shown all turns, unless that would change what the latter kind
reads: then the last turn alone, so that grading the reply gives the report's verdict.
"""

from collections.abc import Callable
from typing import Any

from rollout.verifiers.base import GraderError
from rollout.verifiers.process import CallOverrunError, call_within
from rollout.verifiers.registry import parse_grader

DEADLINE_S = 5.0  # of one comparison; a user's own pattern may take for ever
COMPARE = "serve_app.chat.reading:compare"


def reads_last_turn(grader: dict[str, Any] | None) -> bool:
    """Whether the grader, and each that it combines, reads nothing but the last turn."""
    return grader is not None and _readers(parse_grader(grader)) is not None


def same_reading(grader: dict[str, Any], joined: str, last: str) -> bool:
    """Whether both texts mean the same to the grader; False when that takes too long to say."""
    argument = {"grader": grader, "joined": joined, "last": last}
    try:
        return bool(call_within(COMPARE, argument, DEADLINE_S))
    except (CallOverrunError, GraderError):
        # Acceptable: the last turn alone is then shown, which is what the grader read in the job.
        return False


def compare(argument: dict[str, Any], _mark: Callable[[str], None]) -> bool:
    """`same_reading`, in a process that can be killed."""
    readers = _readers(parse_grader(argument["grader"])) or []
    return all(read(argument["joined"]) == read(argument["last"]) for read in readers)


def _readers(grader: Any) -> list[Callable[[str], Any]] | None:
    """How each grader reads its answer out of the last turn; None when one reads all turns."""
    parts = getattr(grader, "graders", None)
    found = [_readers(part) for part in parts.values()] if isinstance(parts, dict) else None
    if found is not None:
        return None if None in found else [read for part in found for read in part or []]
    read = getattr(grader, "read_last_turn", None)
    return None if read is None else [read]
