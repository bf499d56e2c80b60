"""SRL's reward against pure-Python difflib, at several lengths: ratio of medians."""

import random
import statistics
import time
from difflib import SequenceMatcher

from rollout.verifiers.step_similarity import step_similarity

LENGTHS = (200, 2000, 8000)
RUNS = 5


def median_s(function) -> float:
    """Median seconds of RUNS calls."""
    times = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        function()
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def main() -> None:
    """Print one line per length."""
    rng = random.Random(0)
    for length in LENGTHS:
        a, b = ("".join(rng.choices("abcdefgh \n", k=length)) for _ in range(2))
        ours = median_s(lambda a=a, b=b: step_similarity(a, b))
        peer = median_s(lambda a=a, b=b: SequenceMatcher(None, a, b, autojunk=False).ratio())
        print(f"{length} characters: difflib / step_similarity = {peer / ours:.1f}")


if __name__ == "__main__":
    main()
