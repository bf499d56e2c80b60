"""Which keys a grader may send, and where: its project's anywhere, the operator's where he says.

Whoever writes a grader names both a key and an address. A key of the project's own secrets is his
to send. A key of the operator is an environment variable FERRATA_GRADER_*; where a rule on
addresses is set (`hosts`), it goes only to hosts that the operator listed there.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

from pydantic import AfterValidator

from rollout.verifiers.hosts import is_listed, listed_hosts
from rollout.verifiers.http_json import HttpError

KEY_PREFIX = "FERRATA_GRADER_"
PROJECT_VARIABLE = "FERRATA_PROJECT_SECRETS"  # names, separated by commas
# A secret must not be a way to change how our processes run (LD_PRELOAD, PYTHONPATH, ...).
SECRET_NAME = re.compile(r"(?!RAY_|FERRATA_)[A-Z][A-Z0-9_]*_(KEY|TOKEN|SECRET|PASSWORD|ID)")

# In a process that serves several projects: the secrets of the one whose grader runs.
_project: ContextVar[Callable[[str], str | None]] = ContextVar("project", default=lambda name: None)


@contextmanager
def secrets_of(look_up: Callable[[str], str | None]) -> Iterator[None]:
    """Within this context a project's secrets are read by `look_up`, by name."""
    token = _project.set(look_up)
    try:
        yield
    finally:
        _project.reset(token)


def _is_key_name(name: str) -> str:
    if not re.fullmatch(rf"{KEY_PREFIX}[A-Z0-9_]+", name) and not SECRET_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} may not be read: name a secret of the project, such as JUDGE_API_KEY, or an "
            f"environment variable whose name begins with {KEY_PREFIX}"
        )
    return name


# The name of a project's secret, or of an environment variable of the workers.
KeyName = Annotated[str, AfterValidator(_is_key_name)]


def read_key(name: str, url: str, *, trusted: bool = False) -> str:
    """The key called `name`, to be sent to `url`. Raises HttpError.

    `trusted`: whoever runs the worker chose the address, so that no rule holds for it.
    """
    key = _find_key(name, url, trusted)
    if not (key.isascii() and key.isprintable()):  # the HTTP library's own error would show it
        raise HttpError(
            f"the value of {name} holds a character that no HTTP header can carry: set it anew"
        )
    return key


def _find_key(name: str, url: str, trusted: bool) -> str:
    value = os.environ.get(name, "")
    if value and name in project_secrets():
        return value
    if SECRET_NAME.fullmatch(name) and (own := _project.get()(name)):
        return own
    if not name.startswith(KEY_PREFIX):
        raise HttpError(
            f"the project has no secret {name}: set it with `ferrata secrets set {name}`"
        )
    if not value:
        raise HttpError(f"the environment variable {name} is not set on this worker: set it")
    if not trusted and listed_hosts() is not None and not is_listed(url):
        raise HttpError(
            f"{name} is the operator's, and goes only to hosts in the service's setting "
            "`grader_hosts`; use a secret of the project, or have the host listed"
        )
    return value


def project_secrets() -> set[str]:
    """Names of this process's environment variables that are the project's own secrets."""
    return set(filter(None, os.environ.get(PROJECT_VARIABLE, "").split(",")))
