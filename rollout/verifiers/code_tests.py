"""Does the rollout's program pass the row's unit tests?

The program runs in a sandbox (`rollout.sandbox`), each test in a process of its own. Expected
results never enter the sandbox: what the program printed or returned comes out as data and is
compared here, so an `__eq__`, a patched `assert` or `sys.exit(0)` has nothing to fool.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from rollout.sandbox import (
    FunctionCall,
    Limits,
    RunResult,
    SandboxPool,
    StdinCall,
    same_json,
    shared_pool,
)
from rollout.steps import visible_text
from rollout.types import Problem, Rollout, Verdict

MAX_PROGRAM_CHARACTERS = 100_000
FENCE = "```"


class ReferenceSolutionError(ValueError):
    """A row's reference solution fails its own unit tests; names the row and the test."""


class UnitTestsError(ValueError):
    """A row's unit tests are missing or malformed; names the row, the test and the fix."""


class StdinTest(BaseModel):
    """The program reads `input` and must print `output`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str
    output: str

    def call(self) -> StdinCall:
        """What to run."""
        return StdinCall(self.input)

    def passes(self, result: RunResult) -> bool:
        """True when it ended well and printed `output`; trailing white space does not count."""
        return result.completed and printed_lines(result.stdout) == printed_lines(self.output)


class FunctionTest(BaseModel):
    """`function(*args, **kwargs)` must return `expected`: JSON values, of the same type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    function: str = Field(pattern=r"^[^\W\d]\w*$")
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    expected: Any

    def call(self) -> FunctionCall:
        """What to run."""
        return FunctionCall(self.function, self.args, self.kwargs)

    def passes(self, result: RunResult) -> bool:
        """True when it ended well and returned `expected`; true, 1 and 1.0 differ."""
        return result.completed and result.returned and same_json(result.value, self.expected)


def _kind(test: Any) -> str:
    """Which of the two a test is meant to be, so that errors name only that one's fields."""
    return "function" if isinstance(test, Mapping) and "function" in test else "stdin"


UnitTest = Annotated[
    Annotated[StdinTest, Tag("stdin")] | Annotated[FunctionTest, Tag("function")],
    Discriminator(_kind),
]
_UNIT_TESTS: TypeAdapter[list[StdinTest | FunctionTest]] = TypeAdapter(
    Annotated[list[UnitTest], Field(min_length=1)]
)


class RowWithTests(Protocol):
    """A row of a data file: `id` holds the file's stem and the line, `item` the row's fields."""

    @property
    def id(self) -> str: ...

    @property
    def item(self) -> dict[str, Any]: ...


class CodeTestsVerifier(BaseModel):
    """Scores 1 when the program passes every unit test of its row, else 0.

    The program is the last fenced block of the last turn's visible text, or that whole text when
    it has no such block. A rollout that was cut off has no program.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["code_tests"] = "code_tests"
    name: str = "code_tests"
    tests_field: str = "unit_tests"  # the row's field that holds the tests
    reference_field: str = "reference_solution"  # the row's field that holds a right program
    fraction: bool = False  # the share of tests passed, instead of all or nothing
    # One test's limits. The wall limit is far above the CPU limit, for loaded machines.
    cpu_s: float = Field(default=5.0, gt=0, le=120)
    wall_s: float = Field(default=20.0, gt=0, le=300)
    memory_mb: int = Field(default=512, ge=64, le=16_384)

    def read_last_turn(self, text: str) -> str | None:
        """What it reads out of a rollout: the program in the last turn's text."""
        return extract_program(text)

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict:
        """Return the reward. Raises UnitTestsError for a bad row, SandboxError for our failures."""
        tests = self.unit_tests(problem.id, problem.item)
        program = extract_program(rollout.turns[-1].text) if rollout.finished else None
        if program is None:
            return Verdict(0.0, format_error=True)
        if len(program) > MAX_PROGRAM_CHARACTERS:
            return Verdict(0.0)
        passed, results = self._run(program, tests, shared_pool())
        reward = sum(passed) / len(tests) if self.fraction else float(sum(passed) == len(tests))
        details = {
            "tests": float(len(tests)),
            "tests_passed": float(sum(passed)),
            "limits_exceeded": float(sum(result.limit is not None for result in results)),
        }
        return Verdict(reward, details=details)

    def check_references(self, rows: Iterable[RowWithTests]) -> None:
        """Run each row's reference solution through every test of its row.

        Raises ReferenceSolutionError at the first row whose reference fails, UnitTestsError at a
        row without tests or reference. No sample is judged by tests that a right program fails.
        """
        for row in rows:
            tests = self.unit_tests(row.id, row.item)
            program = row.item.get(self.reference_field)
            if not isinstance(program, str) or not program.strip():
                raise UnitTestsError(
                    f"row {row.id}: {self.reference_field!r} is {program!r:.80}; write a program "
                    "that passes the row's tests, so that the tests can be trusted"
                )
            passed, results = self._run(program, tests, shared_pool(), stop_at_failure=True)
            if not all(passed):
                test, result = tests[len(passed) - 1], results[-1]
                raise ReferenceSolutionError(
                    f"row {row.id}: its {self.reference_field!r} fails unit test {len(passed)} of "
                    f"{len(tests)}: {describe_failure(test, result)}; correct the test or the "
                    "solution"
                )

    def unit_tests(self, row_id: str, item: Mapping[str, Any]) -> list[StdinTest | FunctionTest]:
        """The row's tests. Raises UnitTestsError."""
        try:
            return _UNIT_TESTS.validate_python(item.get(self.tests_field))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (self.tests_field, *first["loc"]))
            raise UnitTestsError(
                f"row {row_id}: {where}: {first['msg']} (got {first['input']!r:.80}); write a list "
                'of {"input": ..., "output": ...} or {"function": ..., "args": [...], '
                '"expected": ...}'
            ) from None

    def _run(
        self,
        program: str,
        tests: list[StdinTest | FunctionTest],
        pool: SandboxPool,
        stop_at_failure: bool | None = None,
    ) -> tuple[list[bool], list[RunResult]]:
        """Which tests passed, up to the first failure unless the fraction is asked for."""
        stop = not self.fraction if stop_at_failure is None else stop_at_failure
        memory_bytes = self.memory_mb << 20
        limits = Limits(
            cpu_s=self.cpu_s,
            wall_s=self.wall_s,
            memory_bytes=memory_bytes,
            group_memory_bytes=memory_bytes,
        )
        passed: list[bool] = []
        results: list[RunResult] = []
        with pool.open(program, limits) as session:
            for test in tests:
                results.append(session.run(test.call()))
                passed.append(test.passes(results[-1]))
                if stop and not passed[-1]:
                    break
        return passed, results


def extract_program(text: str) -> str | None:
    """The last closed fenced block of the visible text, or all of it; None when that is empty."""
    visible = visible_text(text)
    blocks: list[str] = []
    block: list[str] | None = None
    for line in visible.splitlines():
        if line.strip().startswith(FENCE) and block is None:
            block = []
        elif line.strip() == FENCE and block is not None:
            blocks.append("\n".join(block))
            block = None
        elif block is not None:
            block.append(line)
    program = blocks[-1] if blocks else visible
    return program + "\n" if program.strip() else None


def printed_lines(text: str) -> list[str]:
    """The lines of `text`, without white space at their ends and without empty lines at its end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def describe_failure(test: StdinTest | FunctionTest, result: RunResult) -> str:
    """Why a test failed, in words."""
    if result.limit is not None:
        return f"it exceeded its {result.limit} limit"
    if result.exit_code != 0:
        last = result.stderr.strip().splitlines()[-1:] or ["no message"]
        return f"it ended with exit code {result.exit_code} ({last[0]:.200})"
    if isinstance(test, StdinTest):
        return f"it printed {result.stdout!r:.200}, not {test.output!r:.200}"
    if not result.returned:
        return f"{test.function} returned no JSON value"
    return f"{test.function} returned {result.value!r:.200}, not {test.expected!r:.200}"
