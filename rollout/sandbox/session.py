"""Runs the calls of one program, one after another, in a sandbox of its own.

Who is to blame when a sandbox breaks: bubblewrap ending by a signal is ours (SandboxError), it lies
outside where no program reaches. Anything else is tried once more in a fresh sandbox; a program
that brings down two in a row did it itself, and its result says so (limit "sandbox"). Otherwise a
model would learn to have its bad samples dropped.
"""

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, get_args

from rollout.sandbox.records import (
    Call,
    FunctionCall,
    LimitName,
    Limits,
    RunResult,
    SandboxError,
    StdinCall,
)
from rollout.sandbox.sandbox import Sandbox, SandboxVanishedError
from rollout.sandbox.strict_json import NotStrictJSONError, parse_strictly

if TYPE_CHECKING:
    from rollout.sandbox.pool import SandboxPool

OVERHEAD_S = 30.0  # for what the harness does around a call's own wall time
ATTEMPTS = 2
REPORTED_LIMITS = ("memory", "processes", "disk")  # seen by the program's process, as exceptions


class Session:
    """Made by `SandboxPool.open`. Not for several threads at once."""

    def __init__(self, pool: "SandboxPool", program: str, limits: Limits) -> None:
        self._pool, self._program, self._limits = pool, program, limits
        self._stack = contextlib.ExitStack()
        self._sandbox: Sandbox | None = None
        self.pid_namespaces: list[int | None] = []  # of each sandbox used

    def run(self, call: Call) -> RunResult:
        """Run one call. Raises SandboxError when we are at fault."""
        message = _message(call)
        for _ in range(ATTEMPTS):
            sandbox = self._sandbox or self._fresh_sandbox()
            try:
                record = sandbox.call(message, self._limits.wall_s + OVERHEAD_S)
                return _result(record)
            except SandboxVanishedError as error:
                killed = sandbox.supervisor_was_killed()
                self.close()
                if killed:
                    raise SandboxError(f"bubblewrap was killed from outside: {error}") from error
            except BaseException:
                self.close()
                raise
        return RunResult("", "", -9, False, None, "sandbox", 0.0, 0.0)

    def _fresh_sandbox(self) -> Sandbox:
        sandbox = self._stack.enter_context(self._pool.take())
        self.pid_namespaces.append(sandbox.pid_namespace)
        try:
            sandbox.load(self._program, dataclasses.asdict(self._limits))
        except SandboxVanishedError as error:  # the program has not started yet
            self.close()
            raise SandboxError(f"a sandbox was lost before its program started: {error}") from error
        self._sandbox = sandbox
        return sandbox

    def close(self) -> None:
        """Kill the sandbox."""
        self._sandbox = None
        self._stack.close()


def _message(call: Call) -> dict[str, Any]:
    if isinstance(call, StdinCall):
        return {"kind": "stdin", "stdin": call.stdin}
    assert isinstance(call, FunctionCall)
    return {
        "kind": "function",
        "function": call.function,
        "args": call.args,
        "kwargs": call.kwargs,
    }


def _result(record: list[bytes]) -> RunResult:
    """The harness's record, with the program's own report parsed as untrusted text."""
    facts, stdout, stderr, text = (field.decode("utf-8", "replace") for field in record)
    confined, exit_code, limit, cpu_s, wall_s = facts.split()
    if confined != "1":  # written before the program starts, where it cannot reach
        raise SandboxError(f"the harness could not confine a process: {stderr[-500:]}")
    report = _report(text)
    if limit == "-" and report.get("limit") in REPORTED_LIMITS:
        limit = report["limit"]
    return RunResult(
        stdout=stdout,
        stderr=stderr,
        exit_code=int(exit_code),
        returned="value" in report,
        value=report.get("value"),
        limit=_limit_name(limit),
        cpu_s=float(cpu_s),
        wall_s=float(wall_s),
    )


def _limit_name(name: str) -> LimitName | None:
    return next((limit for limit in get_args(LimitName) if limit == name), None)


def _report(text: str) -> dict[str, Any]:
    """What the program's process said; empty when it said nothing readable."""
    try:
        report = parse_strictly(text)
    except NotStrictJSONError:  # untrusted: then it returned nothing
        return {}
    return report if isinstance(report, dict) else {}
