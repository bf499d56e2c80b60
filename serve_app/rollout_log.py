"""What a job's policy wrote, from the files that its driver keeps beside its events.

`out/rollouts/<stage>-<step>.jsonl` holds a rollout a line; a file is replaced whole when its step
is taken again, and never grows.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAGES = ("srl", "srl_2", "rlvr")  # in the order in which a job runs them
_NAME = re.compile(r"(srl|srl_2|rlvr)-(\d{6,})\.jsonl")
_ID = re.compile(r"rollout-(srl|srl_2|rlvr)-(\d{6,})-(\d+)")


class UnknownRolloutError(Exception):
    """An id that is no rollout's."""


@dataclass(frozen=True)
class _StepFile:
    stage: str
    step: int
    path: Path

    @property
    def order(self) -> tuple[int, int]:
        """Later steps have the greater one."""
        return STAGES.index(self.stage), self.step


def list_rollouts(
    out: str, *, stage: str | None, step: int | None, after: str | None, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """Return (rollouts, whether more follow): newest step first, a step's in their own order.

    Raises UnknownRolloutError for an `after` that is no rollout's id. One whose step has been
    given up in the meantime still marks its place.
    """
    cursor = _cursor(after) if after is not None else None
    files = [
        file
        for file in _files(Path(out))
        if stage in (None, file.stage) and step in (None, file.step)
    ]
    found: list[dict[str, Any]] = []
    for file in files:
        if cursor and file.order > cursor[0]:
            continue
        for index, record in enumerate(_read(file)):
            if cursor and file.order == cursor[0] and index <= cursor[1]:
                continue
            if len(found) == limit:
                return found, True
            found.append(_object(file, index, record))
    return found, False


def _cursor(after: str) -> tuple[tuple[int, int], int]:
    match = _ID.fullmatch(after)
    if match is None:
        raise UnknownRolloutError(after)
    return (STAGES.index(match[1]), int(match[2])), int(match[3])


def _files(out: Path) -> list[_StepFile]:
    """Newest step first."""
    matches = [(_NAME.fullmatch(path.name), path) for path in (out / "rollouts").glob("*.jsonl")]
    files = [_StepFile(m[1], int(m[2]), path) for m, path in matches if m]
    return sorted(files, key=lambda file: file.order, reverse=True)


def _read(file: _StepFile) -> Iterator[dict[str, Any]]:
    try:
        text = file.path.read_text(encoding="utf-8")
    except FileNotFoundError:  # its step is being taken again since the folder was listed
        return
    for line in text.split("\n")[:-1]:
        yield json.loads(line)


def _object(file: _StepFile, index: int, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"rollout-{file.stage}-{file.step:06d}-{index}",
        "object": "fine_tuning.job.rollout",
        "stage": file.stage,
        "step": file.step,
        **record,
        "completion": "\n".join(record["turns"]),
    }
