"""What the sandbox's tests share: one call under the usual limits, some of them changed."""

import dataclasses

from rollout.sandbox import Limits, SandboxPool, StdinCall

LIMITS = Limits(cpu_s=2.0, wall_s=20.0)


def run(pool: SandboxPool, program: str, call=None, **changes):
    """One call's result under changed limits."""
    with pool.open(program, dataclasses.replace(LIMITS, **changes)) as session:
        return session.run(call or StdinCall(""))
