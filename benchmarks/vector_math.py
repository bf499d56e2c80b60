"""How often the first call of a vector function, made by two threads at once, is off.

Every trial is a process of its own, forked from one that has imported torch and computed nothing.
It calls each function twice on the same numbers, in float32; the second call is always right. With
`--settled` the process starts as the project's own do (`rollout.vector_math.use_threads`). It is
rare, and rarer on a machine that does nothing else.

    python -m benchmarks.vector_math --trials 1600
"""

import argparse
import json
import os
import traceback

import torch

from rollout.vector_math import FUNCTIONS, use_threads

SIZE, NUM_THREADS = 100_000, 2


def first_calls_off(*, settled: bool) -> dict[str, float]:
    """Return the functions whose first call was off, with the largest relative difference."""
    if settled:
        use_threads(NUM_THREADS)
    else:
        torch.set_num_threads(NUM_THREADS)
    numbers = torch.linspace(0.01, 0.99, SIZE)
    off = {}
    for name in FUNCTIONS:
        first, second = getattr(torch, name)(numbers), getattr(torch, name)(numbers)
        error = float(((first - second).abs() / second.abs().clamp_min(1e-3)).max())
        if error:
            off[name] = error
    return off


def start(*, settled: bool) -> tuple[int, int]:
    """Start a trial; return its process id and the pipe's end that its answer comes from."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(first_calls_off(settled=settled)).encode())
        except BaseException:
            traceback.print_exc()  # the fork must not go on as its parent
        os._exit(0)
    os.close(writer)
    return child, reader


def finish(child: int, reader: int) -> dict[str, float]:
    """Wait for a trial's answer. Raises RuntimeError when it ended without one."""
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError(f"trial {child} ended without an answer")
    return json.loads(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=1600)
    parser.add_argument("--at-once", type=int, default=4, help="processes at one time")
    parser.add_argument("--settled", action="store_true")
    args = parser.parse_args()
    if args.trials % args.at_once:
        parser.error(f"--trials: {args.trials} is no multiple of --at-once, {args.at_once}")

    found: list[dict[str, float]] = []
    for _ in range(args.trials // args.at_once):
        wave = [start(settled=args.settled) for _ in range(args.at_once)]
        found += [finish(*trial) for trial in wave]
    off = [f"{name} by {error:.1e}" for trial in found for name, error in trial.items()]
    print(f"{len(off)} of {len(found) * len(FUNCTIONS)} first calls off", *off, sep="; ")


if __name__ == "__main__":
    main()
