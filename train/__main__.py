"""`python -m train --spec job.yaml --out DIR`: one job, here or inside a Ray job."""

import argparse
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from train import secrets
from train.claim import BUSY_EXIT_CODE, FolderBusyError
from train.data import DataError
from train.plan import steps_planned
from train.registration import register
from train.spec import JobSpec, SpecError
from train.spec_file import load_spec, spec_to_json
from train.stop import JobStoppedError, StopRequest, shielded_children


def main() -> int:
    """Run the job; the exit code is 0, or with a message on standard error:

    2 for a job that is wrong, 75 when another process runs in its folder, 143 (SIGTERM) or 130
    (Ctrl-C) when it was stopped.
    """
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="job file, YAML or JSON")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and report")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a field, such as srl.max_steps=10 (may be repeated)",
    )
    parser.add_argument("--check", action="store_true", help="only check the job, then stop")
    args = parser.parse_args()
    if os.environ.get("RAY_ADDRESS"):  # a cluster has a dashboard to show the training in
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    # Until a stage's workers are placed; then Ray Train says what it waited for.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if secrets.SECRETS_FILE_VARIABLE in os.environ:  # Ray's hook does this for the workers alone
        secrets.load()
    try:
        spec = load_spec(args.spec, args.set)
        from train.preflight import check_cluster, check_job

        checked = check_job(spec)
        if not os.environ.get("RAY_ADDRESS"):  # a cluster is asked once this process has joined it
            check_cluster(spec, {"CPU": os.cpu_count() or 1, "GPU": math.inf})
    except ValueError as error:
        return _refuse(error)
    if args.check:
        print(f"{args.spec}: the job is well formed")
        return 0
    return _run(spec, args.out.resolve(), checked)


def _refuse(error: ValueError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _run(spec: JobSpec, out: Path, checked: Any) -> int:
    """Run the checked job and say what came of it; 128 + signal for a job that was stopped."""
    stop = StopRequest()
    try:
        return _train(spec, out, checked, stop)
    except FolderBusyError as error:
        _refuse(error)
        return BUSY_EXIT_CODE
    except (SpecError, DataError) as error:  # the cluster or the folder does not fit the job
        return _refuse(error)
    except JobStoppedError as stopped:
        print(f"{stopped}; the same command continues", file=sys.stderr)
        return 128 + (stop.signal_number or signal.SIGTERM)
    except (KeyboardInterrupt, SystemExit) as error:  # at once; SystemExit: Ray, while it starts
        print("ended; the same command continues from the last checkpoint", file=sys.stderr)
        by = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
        return 128 + (stop.signal_number or by)


def _train(spec: JobSpec, out: Path, checked: Any, stop: StopRequest) -> int:
    import ray
    from rich.console import Console

    from train.pipeline import EVENTS_FILE, REPORT_FILE, run_job
    from train.progress import ProgressFollower, report_table

    started_s = time.monotonic()
    console = Console()
    console.print(f"job {out}: connecting to Ray")
    # Inside a Ray job RAY_ADDRESS names the cluster; otherwise this process brings its own.
    address = os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    with shielded_children():
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)
        stop.listen()
    register(out, spec_to_json(spec), steps_planned(spec, checked[0].train))
    try:
        with ProgressFollower(out / EVENTS_FILE, console):
            report = run_job(spec, out, checked, stop)
    finally:
        ray.shutdown()
    if report["rows"]:
        console.print(report_table(report))
    console.print(f"{out / REPORT_FILE} after {time.monotonic() - started_s:.0f} s")
    console.print(f"export: {report['export']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
