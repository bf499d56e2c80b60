"""The contract's `python` grader: a user's `grade(sample, item) -> number`, in a sandbox.

Here the program is the grader, so what goes wrong in it is no verdict: it is raised, and never
becomes a number. The sample reaches it as data only.
"""

import ast
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from rollout.sandbox import (
    FunctionCall,
    Limits,
    NotStrictJSONError,
    RunResult,
    parse_strictly,
    shared_pool,
)
from rollout.steps import visible_text
from rollout.types import Problem, Rollout, Verdict
from rollout.verifiers.base import PythonGraderRuntimeError

MAX_SOURCE_BYTES = 256 * 1000
GIGABYTE = 1 << 30
# The contract's limits: 2 minutes, 2 GB, one CPU.
LIMITS = Limits(
    cpu_s=120.0,
    wall_s=120.0,
    memory_bytes=2 * GIGABYTE,
    group_memory_bytes=2 * GIGABYTE,
    num_cpus=1,
)


class PythonGraderError(PythonGraderRuntimeError):
    """The grader crashed, exceeded a limit or returned no number. `details` is its last output."""

    def __init__(self, message: str, details: str) -> None:
        super().__init__(f"{message}: {details}" if details else message)
        self.details = details


class PythonGrader(BaseModel):
    """Runs `source` and takes what its `grade(sample, item)` returns as the reward.

    A rollout that was cut off is graded like any other: the grader sees what there is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["python"] = "python"
    name: str = "python"
    source: str
    image_tag: str | None = None

    @field_validator("source")
    @classmethod
    def _defines_grade(cls, source: str) -> str:
        size = len(source.encode("utf-8", "replace"))
        if size >= MAX_SOURCE_BYTES:
            raise ValueError(f"{size} bytes; a grader's source has less than {MAX_SOURCE_BYTES}")
        try:
            ast.parse(source, "grader.py")  # parsed, never run here
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"is no Python program: {error}") from None
        if "grade" not in source:
            raise ValueError("defines no `grade`: write `def grade(sample, item): return 1.0`")
        return source

    @field_validator("image_tag")
    @classmethod
    def _has_no_image(cls, image_tag: str | None) -> None:
        if image_tag is not None:
            raise ValueError(
                f"{image_tag!r}: there are no images here; graders run on this service's Python "
                "with its standard library. Leave `image_tag` out"
            )

    def read_last_turn(self, text: str) -> str:
        """What it reads out of a rollout: the last turn's visible text as a whole."""
        return visible_text(text)

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict:
        """Return the grader's number. Raises PythonGraderError, or SandboxError."""
        return Verdict(self.grade(sample_of(rollout.turns[-1].text), problem.item))

    def grade(self, sample: dict[str, Any], item: dict[str, Any]) -> float:
        """Run the grader once. Raises PythonGraderError, or SandboxError."""
        with shared_pool().open(self.source, LIMITS) as session:
            result = session.run(FunctionCall("grade", [sample, item]))
        return _number(self.name, result)


def sample_of(text: str) -> dict[str, Any]:
    """The contract's `sample` for a policy's final text; thinks are not part of the output."""
    output = visible_text(text)
    try:
        output_json = parse_strictly(output)
    except NotStrictJSONError:  # most outputs are no JSON
        output_json = None
    return {
        "output_text": output,
        "output_json": output_json,
        "output_tools": [],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": output}}],
    }


def _number(name: str, result: RunResult) -> float:
    details = result.stderr.strip()[-1000:]
    if result.limit is not None:
        raise PythonGraderError(f"grader {name!r} exceeded its {result.limit} limit", details)
    if not result.completed:
        raise PythonGraderError(f"grader {name!r} failed (exit code {result.exit_code})", details)
    value = result.value
    if not result.returned or isinstance(value, bool) or not isinstance(value, int | float):
        raise PythonGraderError(f"grader {name!r} returned {value!r:.80}, not a number", details)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PythonGraderError(f"grader {name!r} returned a number that is not finite", details)
    return number
