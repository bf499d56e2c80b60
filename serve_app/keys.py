"""API keys: made, shown once, recognised, revoked. Every key belongs to one project.

The store holds a key's SHA-256. A key is 256 random bits, so there is nothing to guess or to look
up in a table: a slow password hash would only cost every request its time.
"""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

from serve_app.ids import new_id
from serve_app.store import keys as rows
from serve_app.store.database import Database
from serve_app.store.tables import ApiKey, Project

KEY_START = "sk-ferrata-"
_KEY_BYTES = 32
_PREFIX_LENGTH = len(KEY_START) + 4
_PROJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_KEY_NAME = 64


@dataclass(frozen=True)
class Caller:
    """Who sent a request."""

    project_id: str
    project_name: str
    key_id: str


@dataclass(frozen=True)
class KeyInfo:
    """What may be shown of a key. Times are Unix seconds."""

    id: str
    name: str
    project_id: str
    project_name: str
    prefix: str  # the key's first characters, to tell keys apart
    created_at: int
    revoked_at: int | None


class UnknownKeyError(LookupError):
    """There is no key with this id."""


class Keyring:
    """The keys of one store. Replicas and the command line each have their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_key(self, project_name: str, key_name: str) -> tuple[KeyInfo, str]:
        """Make a key, and its project when that is new; return it with the key itself.

        Only its hash is kept: the key cannot be shown again. Raises ValueError for wrong names.
        """
        _check_names(project_name, key_name)
        key = KEY_START + secrets.token_urlsafe(_KEY_BYTES)
        with self._database.write() as session:
            project = rows.ensure_project(session, project_name)
            row = ApiKey(
                id=new_id("key_"),
                project_id=project.id,
                name=key_name,
                hash=_digest(key),
                prefix=key[:_PREFIX_LENGTH],
                created_at=int(time.time()),
                revoked_at=None,
            )
            session.add(row)
        return _info(row, project), key

    def authenticate(self, key: str) -> Caller | None:
        """Whose key this is; None for one that is unknown or revoked."""
        digest = _digest(key)
        with self._database.read() as session:
            found = rows.key_by_hash(session, digest)
        if found is None:
            return None
        row, project = found
        # The store compared hashes by its own collation; this comparison is exact.
        if not hmac.compare_digest(row.hash, digest) or row.revoked_at is not None:
            return None
        return Caller(project.id, project.name, row.id)

    def list_keys(self, project_name: str | None = None) -> list[KeyInfo]:
        """Every key of a project, or of all, oldest first, revoked ones too."""
        with self._database.read() as session:
            return [_info(*pair) for pair in rows.list_keys(session, project_name)]

    def revoke(self, key_id: str) -> KeyInfo:
        """End a key: its next request is refused. Again changes nothing.

        Raises UnknownKeyError.
        """
        with self._database.write() as session:
            found = rows.key_by_id(session, key_id, lock=True)
            if found is None:
                raise UnknownKeyError(f"no key has the id {key_id!r}; list the keys to see theirs")
            row, project = found
            row.revoked_at = row.revoked_at or int(time.time())
        return _info(row, project)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _info(row: ApiKey, project: Project) -> KeyInfo:
    return KeyInfo(
        row.id, row.name, project.id, project.name, row.prefix, row.created_at, row.revoked_at
    )


def _check_names(project_name: str, key_name: str) -> None:
    if not _PROJECT_NAME.fullmatch(project_name):
        raise ValueError(
            f"project {project_name!r}: 1 to 64 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    if not 1 <= len(key_name) <= _MAX_KEY_NAME or not key_name.isprintable():
        raise ValueError(f"key name {key_name!r}: 1 to {_MAX_KEY_NAME} printable characters")
