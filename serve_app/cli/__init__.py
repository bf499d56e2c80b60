"""`ferrata`: starts a service, and talks to one.

Importing it loads typer, rich, httpx and pydantic; whatever is heavier is imported by the command
that needs it, so that `ferrata --help` answers at once and a client needs no cluster's packages.
"""

import typer

from serve_app.cli import chat, files, jobs, models, service, store, sweep, train
from serve_app.cli.errors import CommandGroup

app = typer.Typer(
    name="ferrata",
    cls=CommandGroup,
    help="Train language models by SRL, then RLVR, on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(service.up)
app.command("down")(service.down)
app.command("status")(service.status)
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("chat")(chat.chat)
app.add_typer(jobs.app, name="jobs")
app.add_typer(files.app, name="files")
app.add_typer(models.app, name="models")
app.add_typer(store.keys, name="keys")
app.add_typer(store.secrets, name="secrets")
app.add_typer(store.db, name="db")


def main() -> None:
    """Entry point of the command."""
    app()
