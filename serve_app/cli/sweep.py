"""`ferrata sweep`: many settings of one job, on this machine or on the cluster of RAY_ADDRESS."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app.cli.errors import fail
from serve_app.cli.options import AsJson
from serve_app.cli.output import print_json


def sweep(
    spec: Annotated[Path, typer.Argument(help="The sweep's file (docs/sweeps.md).")],
    out: Annotated[Path, typer.Option(help="Folder of trials and result; goes on when it exists.")],
    as_json: AsJson = False,
) -> None:
    """Try settings of a job, stop those that fall behind, and compare the best with the default."""
    from train.preflight import check_job
    from train.sweep.spec import load_sweep

    try:
        wanted = load_sweep(spec)
        check_job(wanted.job_of({}))  # model and rows; what is wrong is said before Ray starts
    except ValueError as error:
        fail(str(error), 2)
    import ray
    from rich.console import Console

    from train.sweep.run import RESULT_FILE, SweepError, run_sweep
    from train.sweep.show import PICTURE, draw, table

    address = os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)
    try:
        result = run_sweep(wanted, out.resolve())
    except SweepError as error:
        fail(str(error), 2)
    finally:
        ray.shutdown()
    draw(result, out / PICTURE)
    if as_json:
        print_json(result)
        return
    console = Console()
    console.print(table(result))
    console.print(f"{out / RESULT_FILE}, {out / PICTURE}")
    console.print("The best setting: " + " ".join(f"--set {item}" for item in result["set"]))
