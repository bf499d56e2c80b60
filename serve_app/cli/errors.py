"""What goes wrong ends a command with one line on standard error, and exit status 1 or 2."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from typer.core import TyperGroup

from serve_app.client import FerrataError
from serve_app.record import ClusterError
from train.field_names import describe_field

STDERR = Console(stderr=True, highlight=False, soft_wrap=True)
# Packages of the extras; a command that misses one says how to get it.
SERVICE_PACKAGES = {"alembic", "cryptography", "fastapi", "fsspec", "psutil", "ray", "sqlalchemy"}


class UsageError(Exception):
    """The command was called wrongly: exit status 2."""


class CommandGroup(TyperGroup):
    """The command's root: turns the errors that a user can mend into a line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            fail(str(error), 2)
        except (FerrataError, ClusterError, OSError) as error:
            fail(describe(error), 1)
        except ValidationError as error:
            fail("; ".join(_field(error, item) for item in error.errors()), 2)
        except (json.JSONDecodeError, yaml.YAMLError) as error:
            fail(f"cannot be read as JSON or YAML: {error}", 2)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in SERVICE_PACKAGES:
                raise
            fail(
                f"{ctx.invoked_subcommand!r} works on the service's own machine and needs its "
                f"packages ({error.name} is missing): pip install 'ferrata[cpu]', or "
                "'ferrata[gpu]' where there is a GPU",
                1,
            )


def describe(error: Exception) -> str:
    """What to say of an error, in one paragraph."""
    if isinstance(error, FerrataError) and error.status == 401:
        return f"{error}. Pass --key, set FERRATA_API_KEY, or use --data of a local service"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def fail(message: str, status: int) -> NoReturn:
    """End the command."""
    STDERR.print(f"[bold red]error:[/] {_escape(message)}")
    raise typer.Exit(status)


def note(message: str) -> None:
    """Say something that is no result: on standard error."""
    STDERR.print(_escape(message))


@contextmanager
def store_errors() -> Iterator[None]:
    """Inside, what the store refuses is a usage error or a line, too."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        fail(f"the store does not answer: {str(error).splitlines()[0]}", 1)
    except (ValueError, LookupError, RuntimeError) as error:
        fail(str(error), 1)


def _field(error: ValidationError, item: Any) -> str:
    from serve_app.settings import Settings

    return describe_field(item, Settings if error.title == Settings.__name__ else None)


def _escape(message: str) -> str:
    from rich.markup import escape

    return escape(message)
