"""Runs untrusted programs: bubblewrap, namespaces, seccomp, Landlock, resource limits.

Each sandbox is started in advance, used for one program, and killed; why that design, and what it
costs, is in docs/decisions/0002-sandbox.md. A program sees no network, no file, key, environment
or process of ours; what it prints and returns comes back as data, under a nonce that it never
shares a sandbox with, and is judged by the caller.
Where bubblewrap cannot run, SandboxUnavailableError; nothing ever runs unprotected.

It does not protect against: bugs in the kernel (add a virtual machine where that matters); side
channels through caches, timing or load; a program that is slow because the machine is overloaded
(the wall limit is then ours, so keep it well above the CPU limit); memory above the group's bound
for the 20 ms between two measurements (at most processes times memory_bytes); programs learning
from /proc or the CPU which machine they run on; anything told by the right answer of a weak test.
Programs get the standard library of this interpreter and nothing else.
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
