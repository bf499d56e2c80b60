"""How long `ferrata --help` takes, as a new process: what a person waits before any command."""

import statistics
import subprocess
import sys
import time

RUNS = 10


def main() -> None:
    """Print the median and the slowest of some runs, and of the bare interpreter."""
    for name, words in {
        "python -c pass": ["-c", "pass"],
        "ferrata --help": ["-m", "serve_app.cli", "--help"],
        "ferrata jobs list --help": ["-m", "serve_app.cli", "jobs", "list", "--help"],
    }.items():
        seconds = []
        for _ in range(RUNS):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begin)
        print(f"{name:26} median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
