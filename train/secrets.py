"""Secrets of a job's owner: environment variables of the job's processes, and nowhere else.

The dashboard shows a Ray job's environment, so that one holds only the name of a file that nobody
else can read. The driver calls `load`, and Ray calls it in every worker of the job, as its
`worker_process_setup_hook`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from rollout.verifiers.grader_keys import PROJECT_VARIABLE, SECRET_NAME

SECRETS_FILE_VARIABLE = "FERRATA_SECRETS_FILE"
SETUP_HOOK = "train.secrets.load"


def passed_on(secrets: Mapping[str, str]) -> dict[str, str]:
    """Those whose names say that they are secrets of other services."""
    return {name: value for name, value in secrets.items() if SECRET_NAME.fullmatch(name)}


def load() -> None:
    """Set the secrets of the file that the environment names.

    Raises FileNotFoundError when it is gone: the attempt that it was written for has ended.
    """
    stored = json.loads(Path(os.environ[SECRETS_FILE_VARIABLE]).read_text(encoding="utf-8"))
    give(stored)


def give(secrets: Mapping[str, str]) -> None:
    """Set those that are passed on in this process, and say that they are the project's own."""
    passed = passed_on(secrets)
    os.environ.update(passed)
    os.environ[PROJECT_VARIABLE] = ",".join(passed)


def write(path: Path, secrets: Mapping[str, str]) -> None:
    """Write the file so that only its owner can read it."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(dict(secrets), file)
