"""Problems without answers, steps or a chosen model: one call does the rest.

Makes a smaller rival of the embedded model (a minute), starts a service that knows both, and sends
the quickstart's problems, bare, with `model: "auto"` to `POST /v1/training/start`. The service
writes expert steps with its solver, infers the grader, measures both models, trains the better one
by SRL and then by RLVR, and compares it with its base on held-out problems. Writes what was
chosen and the held-out table below `--out`; `README.md` says what came of a whole run.
"""

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "quickstart"))
from demo import Commands  # noqa: E402

QUICKSTART = ROOT / "examples" / "quickstart"
RIVAL = ("--width", "64", "--layers", "2", "--steps", "150")  # learns the form, few skills


def main() -> None:
    """Read the options, run the chain, stop the service whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/chain"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `down`, as Ctrl-C
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        rows = {name: bare(name, options.out) for name in ("train", "heldout")}
        rival = make_rival(options.out / "rival")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    ferrata = Commands(options.out / "service")
    try:
        ferrata("up", "--port", "0", "--model", f"rival={rival.resolve()}")
        train = ("train", str(rows["train"]), "--heldout", str(rows["heldout"]))
        ferrata(*train, "--model", "auto", "--seed", str(options.seed), "--follow")
        write_report(ferrata, options.out)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    finally:
        ferrata("down")


def bare(name: str, out: Path) -> Path:
    """The quickstart's rows without anything but the problem."""
    lines = (QUICKSTART / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    path = out / f"{name}.jsonl"
    kept = [json.dumps({"messages": json.loads(line)["messages"]}) + "\n" for line in lines]
    path.write_text("".join(kept), encoding="utf-8")
    return path


def make_rival(folder: Path) -> Path:
    """A smaller model of the same form, trained for a minute; made once."""
    if not (folder / "config.json").exists():
        command = [sys.executable, str(ROOT / "models" / "recipe.py"), *RIVAL, "--out", str(folder)]
        subprocess.run(command, check=True)
    return folder


def write_report(ferrata: Commands, out: Path) -> None:
    """What the job chose and what came of it, as one file."""
    job = ferrata.ask("jobs", "list", "--limit", "1")[0]
    report: dict[str, Any] = {
        "job": job["id"],
        "model": job["model"],
        "fine_tuned_model": job["fine_tuned_model"],
        "heldout": job["metrics"]["heldout"],
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
