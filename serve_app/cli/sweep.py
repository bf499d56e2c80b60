"""`ferrata sweep`: many settings of one job on this machine, without a service."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.errors import fail
from serve_app.cli.options import AsJson
from serve_app.cli.output import print_json

if TYPE_CHECKING:
    from train.sweep.spec import SweepSpec

INTERRUPTED = 130


def sweep(
    spec: Annotated[Path, typer.Argument(help="The sweep's file (docs/sweeps.md).")],
    out: Annotated[Path, typer.Option(help="Folder of trials and result.")] = Path("out/sweep"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in --out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try settings of a job, stop those that fall behind, and compare the best with the default."""
    from rich.console import Console

    from train.sweep.run import run_sweep
    from train.sweep.show import CSV_FILE, PICTURE_FILE, draw, table, write_csv
    from train.sweep.spec import load_sweep

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    out = out.resolve()
    try:
        wanted = load_sweep(spec)
        _check(wanted)  # what is wrong is said before Ray starts
        result = run_sweep(wanted, out, resume=resume, say=_say)
    except ValueError as error:
        fail(str(error), 2)
    except KeyboardInterrupt:
        fail("ended; the same command with --resume goes on", INTERRUPTED)
    write_csv(result, out / CSV_FILE)
    draw(result, out / PICTURE_FILE)
    if as_json:
        print_json(result)
        return
    console = Console()
    console.print(table(result))
    console.print(f"{out / CSV_FILE}, {out / PICTURE_FILE}")
    best = next(t for t in result["trials"] if t["trial"] == result["best"])
    console.print(
        "Best by validation: " + ", ".join(f"{k}={v}" for k, v in best["setting"].items())
    )


def _check(wanted: "SweepSpec") -> None:
    """Check model and rows, mixed ones as the job as it stands would draw them."""
    from train.preflight import check_job
    from train.sweep.trials import MIX_FILE, trial_job

    with TemporaryDirectory() as folder:
        try:
            check_job(trial_job(wanted, {}, Path(folder)))
        except ValueError as error:
            mixed = str(Path(folder) / MIX_FILE)
            raise ValueError(str(error).replace(mixed, "the mixed rows")) from None


def _say(line: str) -> None:
    """Progress; a function of the module, since Tune pickles it."""
    typer.echo(line, err=True)
