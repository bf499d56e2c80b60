"""Sandbox verdicts per second: each started when asked for (cold) and from a pool (warm).

Medians of RUNS rounds, and ratios: warm against cold, two threads against one, and what a second
call of the same program costs beside the first.
"""

import statistics
import time
from collections.abc import Callable

from rollout.sandbox import SandboxPool, StdinCall

RUNS = 5
VERDICTS = 20  # per round
PROGRAM = "a, b = map(int, input().split())\nprint(a + b)"


def verdict(pool: SandboxPool, num_calls: int = 1) -> None:
    """Run the program on `num_calls` inputs in one sandbox."""
    with pool.open(PROGRAM) as session:
        for number in range(num_calls):
            assert session.run(StdinCall(f"{number} 1")).stdout == f"{number + 1}\n"


def cold_verdict() -> None:
    """Start a sandbox for one verdict, with nothing standing ready."""
    with SandboxPool(size=1) as pool:
        # the pool's own probe takes the first sandbox; this is the second
        verdict(pool)


def median_s(function: Callable[[], None]) -> float:
    """Median seconds of RUNS calls."""
    times = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        function()
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)
