"""The quickstart through a service: the `ferrata` commands that you would type, one after another.

Starts a service of its own below `--out`, trains the embedded model there, shows what it learnt,
and stops the service. Killed and started again, it goes on with the job that it had.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MARK = "demo=quickstart"


class Commands:
    """Runs `ferrata` on one data folder, and shows what it runs."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def __call__(self, *words: str) -> None:
        """Run a command, its output going to the terminal. Raises CalledProcessError."""
        command = ["ferrata", *words, "--data", str(self._data)]
        print(f"\n$ {shlex.join(command)}", flush=True)
        subprocess.run([sys.executable, "-m", "serve_app.cli", *command[1:]], check=True)

    def ask(self, *words: str):
        """Run a command quietly; return the JSON that it printed last."""
        command = [sys.executable, "-m", "serve_app.cli", *words, "--data", str(self._data)]
        done = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Read the options, run the demo, stop the service whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--data", type=Path, default=HERE, help="folder of the three files of rows")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ferrata = Commands(options.out / "service")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `down`, as Ctrl-C
    try:
        ferrata("up", "--port", "0")
        demo(ferrata, options.data, options.out, options.seed)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    finally:
        ferrata("down")


def demo(ferrata: Commands, data: Path, out: Path, seed: int) -> None:
    """Train, or go on training; then chat with the trained model and take it home."""
    job = unfinished_job(ferrata)
    if job is None:
        rows = [
            f"{field}_file={(data / f'{stem}.jsonl').resolve()}"
            for field, stem in (("training", "train"), ("validation", "valid"), ("heldout",) * 2)
        ]
        settings = [word for row in rows for word in ("--set", row)]
        request = str(HERE / "request.yaml")
        create = ("jobs", "create", request, *settings, f"--seed={seed}", f"--metadata={MARK}")
        ferrata(*create, "--follow")
    else:
        ferrata("jobs", "follow", job)
    done = ferrata.ask("jobs", "list", "--metadata", MARK)[0]
    model = done["fine_tuned_model"]
    write_report(out, done)
    row = json.loads((data / "heldout.jsonl").read_text(encoding="utf-8").splitlines()[0])
    ferrata("chat", model, row["messages"][-1]["content"], "--temperature", "0")
    print(f"(expected: {row['reference_answer']})")
    if not (out / "export").exists():
        ferrata("models", "download", model, "--out", str(out / "export"))
    print(f"table: {out / 'report.json'}   model: {out / 'export'}   data: {out / 'service'}")


def unfinished_job(ferrata: Commands) -> str | None:
    """The job of an earlier demo on this folder that was cut short, or has its results."""
    jobs = ferrata.ask("jobs", "list", "--metadata", MARK)
    usable = [job for job in jobs if job["status"] not in ("failed", "cancelled")]
    return usable[0]["id"] if usable else None


def write_report(out: Path, job: dict) -> None:
    """The held-out table as a file beside the exported model."""
    report = {"job": job["id"], "model": job["fine_tuned_model"], "rows": job["metrics"]["heldout"]}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
