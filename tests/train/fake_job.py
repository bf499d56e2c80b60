"""Stands for `python -m train` at the seam of a sweep: the same files, signals and exit status.

A step takes STEP_S; its validation is the learning rate times the step. A job goes on from its log.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from train.claim import exclusive

STEP_S = float(os.environ.get("FAKE_STEP_S", "0.05"))
HIGHEST_RATE = float(os.environ.get("FAKE_HIGHEST_RATE", "0.9"))  # above it a job fails


def main() -> None:
    """Train, so to speak."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    job = json.loads(args.spec.read_text())
    rate, out = job["srl"]["learning_rate"], args.out
    out.mkdir(exist_ok=True)
    with exclusive(out):
        train(job, rate, out)


def train(job: dict, rate: float, out: Path) -> None:
    """Every step, then the report."""
    log = out / "events.jsonl"
    done = len(log.read_text().splitlines()) if log.exists() else 0

    def stop(*_: object) -> None:
        (out / "stopped").write_text(str(os.getpid()))
        sys.exit(143)

    stubborn = (out.parent / "stubborn").exists()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else stop)
    with (out / "starts").open("a") as starts:
        starts.write(f"{os.getpid()} {done}\n")
    for step in range(done + 1, job["srl"]["max_steps"] + 1):
        time.sleep(STEP_S)
        if rate > HIGHEST_RATE:
            sys.exit("the loss is not finite")
        event = {"type": "metrics", "stage": "srl", "step": step}
        with log.open("a") as file:
            file.write(json.dumps(event | {"full_valid_mean_reward": rate * step}) + "\n")
    (out / "heldout").mkdir(exist_ok=True)
    # Of 100 rows, as many are solved as the learning rate says in per cent.
    rows = [json.dumps({"id": str(i), "solved": i < rate * 100}) + "\n" for i in range(100)]
    (out / "heldout" / "srl.jsonl").write_text("".join(rows))
    (out / "report.json").write_text(json.dumps({"rows": [{"name": "base"}, {"name": "srl"}]}))


if __name__ == "__main__":
    main()
