"""A project's secrets: hub tokens, tracker keys, teachers' keys. Encrypted in the store (Fernet).

The service's own key is in FERRATA_SECRET_KEY, or in `secret.key` in the data folder, which is
made when the first secret is set. A secret's value leaves this module only through `get`.
"""

import os
import re
import tempfile
import time
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import func, select

from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.tables import Project, Secret

KEY_VARIABLE = "FERRATA_SECRET_KEY"
_KEY_FILE = "secret.key"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_MAX_VALUE_BYTES = 16 * 1024
_MAKE_KEY = (
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)


class SecretKeyError(RuntimeError):
    """The service's key is missing, malformed, open to others, or not the one that was used."""


class SecretBox:
    """The secrets of every project."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._path = settings.data / _KEY_FILE
        self._database = database

    def set(self, project_id: str, name: str, value: str) -> None:
        """Keep a secret, in the place of an earlier one of that name.

        Raises ValueError for a wrong name or value, SecretKeyError without a usable key.
        """
        _check(name, value)
        fernet = self._fernet() or self._make_key()
        ciphertext = fernet.encrypt(value.encode())
        row = Secret(
            project_id=project_id, name=name, ciphertext=ciphertext, updated_at=int(time.time())
        )
        with self._database.write() as session:
            # Two that set the same new name follow one another.
            session.get_one(Project, project_id, with_for_update=True)
            session.merge(row)

    def get(self, project_id: str, name: str) -> str | None:
        """Return a secret's value; None when it is not set. Raises SecretKeyError."""
        with self._database.read() as session:
            row = session.get(Secret, (project_id, name))
        if row is None:
            return None
        fernet = self._fernet()
        if fernet is None:
            raise SecretKeyError(
                f"secret {name!r} cannot be read: {self._path} is gone. Put it back, or give its "
                f"content in {KEY_VARIABLE}, or set the project's secrets again after deleting them"
            )
        try:
            return fernet.decrypt(row.ciphertext).decode()
        except InvalidToken:
            raise SecretKeyError(
                f"secret {name!r} was encrypted with another key than {self._source()}: bring that "
                "key back, or set the secret again"
            ) from None

    def names(self, project_id: str) -> list[str]:
        """The names of a project's secrets, sorted."""
        query = select(Secret.name).where(Secret.project_id == project_id)
        with self._database.read() as session:
            return sorted(session.scalars(query))

    def delete(self, project_id: str, name: str) -> bool:
        """Forget a secret; False when there was none."""
        with self._database.write() as session:
            row = session.get(Secret, (project_id, name))
            if row is not None:
                session.delete(row)
        return row is not None

    def _source(self) -> str:
        return KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else str(self._path)

    def _fernet(self) -> Fernet | None:
        """The service's key; None when there is none yet."""
        key = os.environ.get(KEY_VARIABLE) or _read_private(self._path)
        if key is None:
            return None
        try:
            return Fernet(key.strip())
        except ValueError:
            raise SecretKeyError(
                f"{self._source()} holds no key (32 bytes in URL-safe base64): make one by "
                f"{_MAKE_KEY}"
            ) from None

    def _make_key(self) -> Fernet:
        """Make the key file, unless another process is faster; return what is in it."""
        with self._database.read() as session:
            num_secrets = session.scalar(select(func.count()).select_from(Secret))
        if num_secrets and not self._path.exists():
            raise SecretKeyError(
                f"{self._path} is gone, and {num_secrets} secrets were encrypted with it: put it "
                f"back, or give its content in {KEY_VARIABLE}, or delete those secrets first"
            )
        _create_once(self._path, Fernet.generate_key())
        fernet = self._fernet()
        assert fernet is not None, "the key file was just made"
        return fernet


def _read_private(path: Path) -> str | None:
    """The text of a file that only its owner may read; None when there is none."""
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise SecretKeyError(f"{path} can be read by others: chmod 600 {path}")
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return ""  # no key, which the caller says


def _create_once(path: Path, content: bytes) -> None:
    """Write a private file whole, or leave the one that is there: a link never replaces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"secret {name!r}: a name is 1 to 64 letters, digits and '_', as of an environment "
            "variable"
        )
    if not 1 <= len(value.encode()) <= _MAX_VALUE_BYTES or "\0" in value:
        raise ValueError(
            f"secret {name!r}: a value is 1 to {_MAX_VALUE_BYTES} bytes without NUL bytes"
        )
