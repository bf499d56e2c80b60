"""Bodies of create calls: from a YAML or JSON file, single settings, and local files to upload."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from serve_app.cli.errors import UsageError

Json = dict[str, Any]
FILE_FIELDS = ("training_file", "validation_file", "heldout_file", "file")
FILE_ID_PREFIX = "file-"


def read_body(path: Path | None) -> Json:
    """A body from a file; names of local files in it start at its folder."""
    if path is None:
        return {}
    body = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(body, dict):
        raise UsageError(f"{path} holds {type(body).__name__}, not an object of fields")
    return body | {field: str(path.parent / name) for field, name in _local_files(body).items()}


def read_value(text: str) -> Any:
    """A value as YAML; `@FILE` reads it from a YAML or JSON file."""
    if text.startswith("@"):
        return yaml.safe_load(Path(text[1:]).read_text(encoding="utf-8"))
    return yaml.safe_load(text)


def apply_settings(body: Json, settings: Sequence[str]) -> Json:
    """Set fields given as `a.b=VALUE`; the value is YAML, so `null`, numbers and lists work."""
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {setting}: write FIELD=VALUE, such as srl.max_steps=20")
        *parents, last = name.split(".")
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UsageError(f"--set {setting}: {parent!r} holds no fields in the body")
        place[last] = read_value(text)
    return body


def key_values(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Options given as NAME=VALUE, several times."""
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"{option} {pair}: write NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def check_files(body: Json) -> Json:
    """Raises UsageError for a local file that the body names and that is not there."""
    for field, name in _local_files(body).items():
        if not Path(name).is_file():
            raise UsageError(
                f"{field}: {name} is no file; name one that is there, or the id of one that is "
                f"uploaded, {FILE_ID_PREFIX}..."
            )
    return body


def upload_files(body: Json, send: Callable[[Path], Json]) -> Json:
    """Upload the local files that the body names, and put their ids in their places."""
    return body | {field: send(Path(name))["id"] for field, name in _local_files(body).items()}


def _local_files(body: Json) -> dict[str, str]:
    """Of the fields that name a file, those that name no uploaded one."""
    given = {field: body.get(field) for field in FILE_FIELDS}
    return {
        field: name
        for field, name in given.items()
        if isinstance(name, str) and not name.startswith(FILE_ID_PREFIX)
    }
