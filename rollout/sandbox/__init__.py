"""Runs untrusted programs: bubblewrap, namespaces, seccomp, Landlock, resource limits.

Each sandbox is started in advance, used for one program, and killed; why that design, and what it
costs, is in docs/decisions/0002-sandbox.md. A program sees no network, no file, key, environment
or process of ours; what it prints and returns comes back as data, under a nonce that it never
shares a sandbox with, and is judged by the caller.
Where bubblewrap cannot run, SandboxUnavailableError; nothing ever runs unprotected.

It does not protect against:
- bugs in the kernel (where that matters, give the nodes a virtual machine of their own);
- side channels: caches, timing, load, and locks on shared read-only files and /dev/null, by which
  two programs that run at the same moment can signal each other;
- overload: a program that gets no CPU exceeds its wall limit, so keep that far above the CPU limit;
- memory above the group's bound in the 20 ms between two measurements (at most `processes` times
  `memory_bytes`), and up to about 100 MB of pipe buffers, which no process is charged for;
- a program that learns which kind of machine it runs on;
- a weak test: a right answer got by other means than solving the problem.
Programs get the standard library of this interpreter and no packages.
"""

from rollout.sandbox.pool import SandboxPool, shared_pool
from rollout.sandbox.records import (
    Call,
    FunctionCall,
    LimitName,
    Limits,
    RunResult,
    SandboxError,
    SandboxUnavailableError,
    StdinCall,
)
from rollout.sandbox.session import Session
from rollout.sandbox.strict_json import NotStrictJSONError, parse_strictly, same_json

__all__ = [
    "Call",
    "FunctionCall",
    "LimitName",
    "Limits",
    "NotStrictJSONError",
    "RunResult",
    "SandboxError",
    "SandboxPool",
    "SandboxUnavailableError",
    "Session",
    "StdinCall",
    "parse_strictly",
    "same_json",
    "shared_pool",
]
