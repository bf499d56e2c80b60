"""What a job's preparation answers for a job that cannot run, in the contract's words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.data import BadLine, DataError

_FIELD = re.compile(r"([a-z_]+(?:\.[a-z_]+)*)(?: is\b|:)")
# Fields of a specification by the create call's name for them.
_FIELDS = {
    "learner": "resources",
    "rollout": "resources",
    "grader": "method.reinforcement.grader",
}
CODES = {
    "training": ("invalid_training_file", "training_file"),
    "validation": ("invalid_validation_file", "validation_file"),
    "heldout": ("invalid_heldout_file", "heldout_file"),
}


@dataclass
class PrepareError(ValueError):
    """The client's to mend: becomes the failed job's `error`."""

    code: str
    message: str
    param: str | None
    lines: list[dict[str, Any]]  # {"line": 100, "message": ...} of the first bad rows

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Any:
        """Survive the way out of a Ray task with every field."""
        return type(self), (self.code, self.message, self.param, self.lines)


def example(line: int, message: str) -> str:
    """One bad row as the contract writes it: "Example 100, message 2: 'role' is missing"."""
    joint = ", " if message.startswith("message ") else ": "
    return f"Example {line}{joint}{message}"


def from_data_error(error: DataError, uses: Mapping[Path, str]) -> PrepareError:
    """`uses` says what each local file is for; paths of this machine are not told."""
    use = uses.get(error.path, "training") if error.path else "training"

    def without_paths(text: str) -> str:
        for path, name in uses.items():
            text = text.replace(str(path), f"the {name} file")
        return text

    lines = [BadLine(bad.line, without_paths(bad.message)) for bad in error.lines]
    made = bad_lines(use, lines)
    text = made.message if lines else without_paths(str(error))
    return PrepareError(made.code, text, made.param, made.lines)


def bad_lines(use: str, lines: Sequence[BadLine]) -> PrepareError:
    """Lines of a file that cannot be used."""
    code, param = CODES[use]
    told = [{"line": bad.line, "message": example(bad.line, bad.message)} for bad in lines]
    text = "; ".join(str(bad["message"]) for bad in told)
    return PrepareError(code, f"The {use} file cannot be used. {text}", param, told)


def from_spec_error(error: ValueError) -> PrepareError:
    """A specification that the checks refuse: `param` is the create call's name of the field."""
    text = str(error).replace("spec.json: ", "").removeprefix("job: ")
    found = _FIELD.match(text)
    field = found[1] if found else None
    if field is None and text.startswith("the job asks for"):
        return PrepareError("insufficient_resources", text, "resources", [])
    for ours, theirs in _FIELDS.items():
        if field == ours or (field or "").startswith(f"{ours}."):
            field = theirs + (field or "").removeprefix(ours)
    return PrepareError("invalid_value", text, field, [])
