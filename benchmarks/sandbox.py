"""Sandbox verdicts: latency cold and warm, and what a pool sustains on one core and on two.

Cold starts a sandbox for the verdict; warm takes one that stands ready. Medians of RUNS, and
ratios. The pool's starts run beside the verdicts, so the sustained rate is what a step pays.
"""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

from rollout.sandbox import Limits, SandboxPool, Session, StdinCall
from rollout.sandbox.launch import FIRST_TRANSIENT_UID, find_bwrap
from rollout.sandbox.sandbox import Sandbox

RUNS = 15
VERDICTS_PER_ROUND, ROUNDS = 40, 3
SETTLE_S = 0.5  # for the pool to refill
PROGRAM = "a, b = map(int, input().split())\nprint(a + b)"


def judge(session: Session, num_calls: int = 1) -> None:
    """Run the program on `num_calls` inputs and check what it prints."""
    for number in range(num_calls):
        assert session.run(StdinCall(f"{number} 1")).stdout == f"{number + 1}\n"


def cold_verdict() -> None:
    """Start a sandbox, use it, kill it."""

    @contextmanager
    def take():
        sandbox = Sandbox(find_bwrap(), Limits().disk_bytes, FIRST_TRANSIENT_UID)
        try:
            sandbox.wait_ready()
            yield sandbox
        finally:
            sandbox.kill()

    session = Session(SimpleNamespace(take=take), PROGRAM, Limits())  # pyright: ignore
    judge(session)
    session.close()


def warm_verdict(pool: SandboxPool, num_calls: int = 1) -> None:
    """Use a sandbox of the pool."""
    with pool.open(PROGRAM) as session:
        judge(session, num_calls)


def median_s(function: Callable[[], None], settle_s: float = 0.0) -> float:
    """Median seconds of RUNS calls, with a pause before each."""
    times = []
    for _ in range(RUNS):
        time.sleep(settle_s)
        started_s = time.perf_counter()
        function()
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def sustained_per_s(num_cores: int) -> float:
    """Verdicts per second of `num_cores` threads on as many cores, refills included."""
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(everything)[:num_cores])  # the pool's children inherit it
    rates = []
    with (
        SandboxPool(size=4 * num_cores) as pool,
        ThreadPoolExecutor(num_cores) as threads,
    ):
        for _ in range(ROUNDS):
            started_s = time.perf_counter()
            for verdict in [threads.submit(warm_verdict, pool) for _ in range(VERDICTS_PER_ROUND)]:
                verdict.result()
            rates.append(VERDICTS_PER_ROUND / (time.perf_counter() - started_s))
    os.sched_setaffinity(0, everything)
    return statistics.median(rates)


def main() -> None:
    """Print one line per comparison."""
    cold_s = median_s(cold_verdict)
    with SandboxPool() as pool:
        warm_s = median_s(lambda: warm_verdict(pool), SETTLE_S)
        ten_s = median_s(lambda: warm_verdict(pool, 10), SETTLE_S)
    one = sustained_per_s(1)
    print(f"latency: cold {cold_s * 1e3:.0f} ms, warm {warm_s * 1e3:.0f} ms, "
          f"cold / warm = {cold_s / warm_s:.1f}")  # fmt: skip
    print(f"ten unit tests / one, same sandbox = {ten_s / warm_s:.1f}")
    print(f"verdicts per second, one by one: cold {1 / cold_s:.0f}, warm {1 / warm_s:.0f}")
    print(f"verdicts per second sustained on one core: {one:.0f}")
    if len(os.sched_getaffinity(0)) > 1:
        two = sustained_per_s(2)
        print(f"on two cores: {two:.0f}, two / one = {two / one:.1f}")


if __name__ == "__main__":
    main()
