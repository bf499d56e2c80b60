"""What goes into a sandbox and what comes out. No processes here."""

from dataclasses import dataclass, field
from typing import Any, Literal

MEGABYTE = 1 << 20

LimitName = Literal[
    "cpu", "wall", "memory", "processes", "disk", "files", "output", "sandbox"
]  # "sandbox": the program brought its sandbox down twice in a row


class SandboxError(RuntimeError):
    """A failure of ours: a sandbox did not start, or its supervisor died. No verdict."""


class SandboxUnavailableError(SandboxError):
    """This machine cannot run sandboxes; says why and what to install or allow."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may use. Exceeding one ends the call and is named in its result."""

    cpu_s: float = 5.0  # of all the call's processes together
    wall_s: float = 15.0
    memory_bytes: int = 512 * MEGABYTE  # address space of one process
    group_memory_bytes: int = 768 * MEGABYTE  # resident in all processes, measured every 20 ms
    num_cpus: int | None = None  # CPUs that the call is bound to; None: all
    processes: int = 16  # threads count, and one is the sandbox's own
    file_bytes: int = 16 * MEGABYTE  # one file
    disk_bytes: int = 32 * MEGABYTE  # all files together, in memory; fixed when a sandbox starts
    files: int = 2000  # files and folders, measured every 20 ms
    descriptors: int = 64
    output_bytes: int = MEGABYTE  # stdout, stderr and the returned value together


@dataclass(frozen=True, slots=True)
class StdinCall:
    """Run the program as `__main__` with this standard input."""

    stdin: str


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """Define the program's names, then call one of its functions. All values are JSON."""

    function: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)


Call = StdinCall | FunctionCall


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one call did. Everything in it but the limit and the times is the program's word."""

    stdout: str  # undecodable bytes replaced
    stderr: str  # the end of it
    exit_code: int  # negative: minus the signal that ended the process
    returned: bool  # a function call gave a JSON value
    value: Any  # that value
    limit: LimitName | None  # the limit that it exceeded
    cpu_s: float  # of all its processes
    wall_s: float

    @property
    def completed(self) -> bool:
        """True when the program ended by itself, successfully and within its limits."""
        return self.limit is None and self.exit_code == 0
