"""Rows: read, checked, frozen. Every complaint names file, line, field, value and fix."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from train.step_parser import parse_steps, split_title

MAX_REPORTED_ERRORS = 5
ROLES = ("system", "user", "assistant")
FIELDS = ("messages", "reference_answer", "expert_steps", "expert_thoughts")
RowKind = Literal["problems", "conversations"]
NEAR_MISS = 0.8  # likeness from which an unknown field is taken for a misspelt one


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of a data file that cannot be used."""

    line: int  # from 1
    message: str


class DataError(ValueError):
    """A data file that cannot be used; one line per bad row, at most MAX_REPORTED_ERRORS.

    `path` and `lines` say where, when it is about single lines.
    """

    def __init__(
        self, message: str, path: Path | None = None, lines: Sequence[BadLine] = ()
    ) -> None:
        super().__init__(message)
        self.path, self.lines = path, tuple(lines)

    @classmethod
    def at(cls, path: Path, line: int, message: str) -> "DataError":
        """One bad line."""
        return cls(f"{path}, line {line}: {message}", path, [BadLine(line, message)])


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a data file."""

    id: str  # "train:17": file stem and line number, from 1
    messages: tuple[dict[str, str], ...]  # the last one is the user's
    reference_answer: str | None = None
    expert_steps: tuple[str, ...] = ()
    expert_thoughts: tuple[str, ...] = ()  # one per step, or none at all
    expert_titles: tuple[str | None, ...] = ()  # one per step that was written in one text
    item: dict[str, Any] = field(default_factory=dict)  # every field but `messages`, as written
    completion: str | None = None  # of a conversation: the assistant's last message

    @property
    def line(self) -> int:
        """Its number in the file, from 1."""
        return int(self.id.rpartition(":")[2])

    @property
    def problem_text(self) -> str:
        """The user's last message."""
        return self.messages[-1]["content"]

    def titled_step(self, k: int) -> tuple[str | None, str]:
        """Title and text of the step at `k`, from 0; in a list of steps, "Title: text" has one."""
        step = self.expert_steps[k]
        if not self.expert_titles:
            return split_title(step)
        title = self.expert_titles[k]
        return title, step.removeprefix(f"{title}: ") if title else step


def read_rows(path: Path, kind: RowKind = "problems") -> list[Row]:
    """Read a JSON Lines file. Raises DataError for an unreadable, empty or wrong file.

    The last message of a problem is the user's, that of a conversation the assistant's, which
    becomes `Row.completion`.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; correct the path in the job's `data`"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text: {error}") from None
    rows, errors = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_parse_row(line, f"{path.stem}:{number}", kind))
        except ValueError as error:
            errors.append(BadLine(number, str(error)))
    if errors:
        shown = errors[:MAX_REPORTED_ERRORS]
        texts = [f"{path}, line {bad.line}: {bad.message}" for bad in shown]
        if more := len(errors) - len(shown):
            texts.append(f"... and {more} more bad lines")
        raise DataError("\n".join(texts), path, shown)
    if not rows:
        raise DataError(f"{path}: holds no rows; write one JSON object per line")
    return rows


def check_disjoint(files: dict[Path, list[Row]]) -> None:
    """Raise DataError when one problem stands in two files: a score on it would mean nothing."""
    seen: dict[str, tuple[Path, int]] = {}  # by the whole conversation
    for path, rows in files.items():
        for row in rows:
            other, other_line = seen.setdefault(json.dumps(row.messages), (path, row.line))
            if other != path:
                raise DataError.at(
                    path,
                    row.line,
                    f"the same problem stands in {other}, line {other_line}: "
                    f"{row.problem_text[:80]!r}; remove it from one of the two",
                )


def _check_characters(raw: object) -> None:
    """Raises ValueError for a text that no tokenizer takes and no file can be written with."""
    try:
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(
            "holds half a character, an escape from \\ud800 to \\udfff without its other half; "
            "write the whole character"
        ) from None


def _parse_row(line: str, row_id: str, kind: RowKind) -> Row:
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("is nested too deeply to be read; make it flatter") from None
    if "\\ud" in line.lower():
        _check_characters(raw)
    if not isinstance(raw, dict):
        raise ValueError(f"holds a {type(raw).__name__}; write an object with `messages`")
    for name in raw.keys() - set(FIELDS):
        # Any field may ride along for a grader; one that is nearly ours is a slip of the pen.
        if near := difflib.get_close_matches(name, FIELDS, n=1, cutoff=NEAR_MISS):
            raise ValueError(f"`{name}` is an unknown field; did you mean `{near[0]}`?")
    steps, titles = _parse_steps(raw)
    thoughts = _parse_texts(raw, "expert_thoughts")
    if thoughts and len(thoughts) != len(steps):
        raise ValueError(
            f"`expert_thoughts` has {len(thoughts)} entries for {len(steps)} `expert_steps`; "
            "write one per step, or leave it out"
        )
    item = {name: value for name, value in raw.items() if name != "messages"}
    messages = _parse_messages(raw, kind)
    completion = messages[-1]["content"] if kind == "conversations" else None
    problem = messages[:-1] if kind == "conversations" else messages
    return Row(
        row_id, problem, _parse_answer(raw), steps, thoughts, titles, item, completion=completion
    )


def _parse_messages(raw: dict[str, Any], kind: RowKind) -> tuple[dict[str, str], ...]:
    messages = raw.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError(
            '`messages` is missing or empty; write [{"role": "user", "content": "the problem"}]'
        )
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise ValueError(f"message {number}: is {message!r}, not an object")
        if message.get("role") not in ROLES:
            got = repr(message["role"]) if "role" in message else "missing"
            raise ValueError(f"message {number}: 'role' is {got}; choose {', '.join(ROLES)}")
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"message {number}: 'content' is {content!r}; write some text")
    last, role = len(messages), messages[-1]["role"]
    if kind == "problems" and role != "user":
        raise ValueError(
            f"message {last}: the last role is {role!r}; it must be 'user' (an expert's solution "
            "goes into `expert_steps`)"
        )
    if kind == "conversations" and (role != "assistant" or last == 1):
        raise ValueError(
            f"message {last}: the last role is {role!r}; a conversation to learn from ends with "
            "the assistant's answer to an earlier message"
        )
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def _parse_answer(raw: dict[str, Any]) -> str | None:
    answer = raw.get("reference_answer")
    if answer is None:
        return None
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ValueError(f"`reference_answer` is {answer!r}; write a string or a number")
    if not str(answer).strip():
        raise ValueError("`reference_answer` is empty; write the answer or leave it out")
    return str(answer)


def _parse_steps(raw: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """The expert's steps, and their titles when they are one text of numbered steps."""
    text = raw.get("expert_steps")
    if not isinstance(text, str):
        return _parse_texts(raw, "expert_steps"), ()
    try:
        steps = parse_steps(text)
    except ValueError as error:
        raise ValueError(f"`expert_steps`: {error}") from None
    return tuple(step.full for step in steps), tuple(step.title for step in steps)


def _parse_texts(raw: dict[str, Any], name: str) -> tuple[str, ...]:
    texts = raw.get(name)
    if texts is None:
        return ()
    if not isinstance(texts, list) or not texts:
        raise ValueError(f"`{name}` is {texts!r}; write a list of strings, or leave it out")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"`{name}` entry {number} is {text!r}; write some text")
    return tuple(texts)
