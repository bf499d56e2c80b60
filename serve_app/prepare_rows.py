"""A job's rows: read and checked, split without a leak, written where the job will read them.

A row keeps its line number: where rows are taken out, their lines are left empty, so that later
messages name the line of the client's own file.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_app.prepare_error import CODES, PrepareError, from_data_error
from train.data import DataError, Row, RowKind, check_disjoint, read_rows

MIN_ROWS = 10  # of a training file
SPLIT_SHARE = 0.05  # of the training rows, to validate, where no file is given
SPLIT_LEAST, SPLIT_MOST = 32, 200  # rows; never more than one row in SPLIT_PART
SPLIT_PART = 5
NAMES = {"training": "train", "validation": "valid", "heldout": "heldout"}


@dataclass
class JobRows:
    """The rows of a job by use, and where they came from."""

    kind: RowKind
    rows: dict[str, list[Row]]  # training, validation (once split), heldout
    sources: dict[str, str] = field(default_factory=dict)  # use -> the file that its rows stood in
    notes: list[str] = field(default_factory=list)

    def every_row(self) -> Iterable[Row]:
        """All rows of all uses."""
        return (row for rows in self.rows.values() for row in rows)


def file_kind(path: Path) -> str | None:
    """What a file's first rows are: problems, conversations, preferences; None: unreadable."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                raw = json.loads(line)
                if "preferred_output" in raw or "non_preferred_output" in raw:
                    return "preferences"
                role = raw["messages"][-1]["role"]
            except (ValueError, LookupError, TypeError, RecursionError):
                return None  # the reader names the line and what is wrong with it
            return {"user": "problems", "assistant": "conversations"}.get(role)
    return None


def check_kind(use: str, found: str | None, wanted: RowKind) -> None:
    """Raise PrepareError when a file is of another kind than the method needs."""
    if found in (None, wanted):
        return
    described = {
        "problems": "problems (the last message is the user's), for method 'reinforcement' or "
        "'srl'",
        "conversations": "conversations (the last message is the assistant's), for method "
        "'supervised', which is not implemented",
        "preferences": "preference pairs, for method 'dpo', which is not implemented",
    }
    code, param = CODES[use]
    raise PrepareError(
        code,
        f"The {use} file holds {described[found or '']}; this job needs {described[wanted]}.",
        param,
        [],
    )


def read_job_rows(files: Mapping[str, Path], kind: RowKind) -> JobRows:
    """Read every file of the job. Raises PrepareError, also for too few training rows."""
    data = read_rows_of(files, kind)
    number = len(data.rows["training"])
    if number < MIN_ROWS:
        raise PrepareError(
            "invalid_n_examples",
            f"The training file has {number} example{'s' if number != 1 else ''}, but at least "
            f"{MIN_ROWS} are needed; add rows.",
            "training_file",
            [],
        )
    return data


def read_rows_of(files: Mapping[str, Path], kind: RowKind = "problems") -> JobRows:
    """Read files by use. Raises PrepareError with the first bad lines."""
    uses = {path: use for use, path in files.items()}
    rows = {}
    for use, path in files.items():
        check_kind(use, file_kind(path), kind)
        try:
            rows[use] = read_rows(path, kind)
        except DataError as error:
            raise from_data_error(error, uses) from None
    try:
        check_disjoint({path: rows[use] for use, path in files.items()})
    except DataError as error:
        raise from_data_error(error, uses) from None
    return JobRows(kind, rows, {use: use for use in files})


def split_validation(
    data: JobRows, seed: int, eval_samples: int | None, usable: Callable[[Row], bool]
) -> None:
    """Give the job validation rows: its own file's, or a seeded share of the training rows.

    The same problem never stands on both sides. `eval_samples` bounds how many rows validate;
    `usable` says which rows can be judged.
    """
    if "validation" in data.rows:
        given = data.rows["validation"]
        if eval_samples is not None and eval_samples < len(given):
            kept = random.Random(seed).sample(range(len(given)), eval_samples)
            data.rows["validation"] = [given[i] for i in sorted(kept)]
            data.notes.append(f"validation: {eval_samples} of {len(given)} rows (eval_samples)")
        return
    rows = data.rows["training"]
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(json.dumps(row.messages), []).append(row)
    judged = sorted(key for key, same in problems.items() if any(usable(row) for row in same))
    share = max(round(SPLIT_SHARE * len(problems)), SPLIT_LEAST)
    count = eval_samples or min(share, SPLIT_MOST)
    count = max(1, min(count, len(judged) // SPLIT_PART))
    if len(problems) < 2 or not judged:
        raise PrepareError(
            "invalid_n_examples",
            f"The training file has {len(problems)} different problems, {len(judged)} of them with "
            "a `reference_answer` to judge by, so that none can be set apart to validate; add "
            "problems with answers, or give a validation_file.",
            "training_file",
            [],
        )
    chosen = set(random.Random(seed).sample(judged, count))
    valid = [row for key in chosen for row in problems[key]]
    data.rows["validation"] = sorted(valid, key=lambda row: row.line)
    data.rows["training"] = [row for row in rows if json.dumps(row.messages) not in chosen]
    data.sources["validation"] = "training"
    data.notes.append(
        f"validation: {len(valid)} of the {len(rows)} training rows, set apart with seed {seed}"
    )


def write_rows(data: JobRows, folder: Path) -> dict[str, Path]:
    """Write every use's rows; return the paths by use."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for use, rows in data.rows.items():
        paths[use] = folder / f"{NAMES[use]}.jsonl"
        paths[use].write_text(_as_lines(rows), encoding="utf-8")
    return paths


def _as_lines(rows: Sequence[Row]) -> str:
    by_line = {row.line: row for row in rows}
    last = max(by_line, default=0)
    return "".join(
        (json.dumps(as_json(by_line[n])) if n in by_line else "") + "\n" for n in range(1, last + 1)
    )


def as_json(row: Row) -> dict[str, Any]:
    """The row as a line of a file."""
    messages = list(row.messages)
    if row.completion is not None:
        messages.append({"role": "assistant", "content": row.completion})
    return {"messages": messages, **row.item}
