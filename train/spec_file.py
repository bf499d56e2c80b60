"""A job's specification read from a file: what is wrong, named with the fix."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rollout.verifiers.registry import GraderSpecError
from train.experts.engine_teacher import EngineTeacherSpec
from train.field_names import describe_field
from train.spec import DataSpec, JobSpec, SpecError


def read_yaml(path: Path) -> Any:
    """What a YAML or JSON file holds. Raises SpecError, naming the file."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: is neither YAML nor JSON: {error}") from None


def load_spec(path: Path, overrides: list[str] | None = None) -> JobSpec:
    """Read a YAML or JSON file; `overrides` are "dotted.key=value", value in YAML.

    Raises SpecError, naming file, field, value and fix.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise SpecError(f"{path}: holds a {type(raw).__name__}, not a mapping of fields")
    for override in overrides or []:
        _apply_override(raw, override)
    spec = parse_spec(raw, source=str(path), overrides=overrides or [])
    base = path.resolve().parent
    data = {
        name: None if value is None else (base / value).resolve()
        for name, value in spec.data.model_dump().items()
    }
    found: dict[str, Any] = {
        "data": DataSpec.model_validate(data),
        "model": _located(spec.model, base),
    }
    if (more := spec.more_examples) is not None:
        update: dict[str, Any] = {"documents": tuple((base / d).resolve() for d in more.documents)}
        if isinstance(more.teacher, EngineTeacherSpec):
            update["teacher_model"] = _located(more.teacher_model or more.teacher.model, base)
        found["more_examples"] = more.model_copy(update=update)
    return spec.model_copy(update=found)


def _located(model: str, base: Path) -> str:
    """A hub name as it is; of a folder, the whole path."""
    return str((base / model).resolve()) if model.startswith(("./", "../", "/")) else model


def parse_spec(raw: dict[str, Any], *, source: str, overrides: Sequence[str] = ()) -> JobSpec:
    """Validate a mapping. Raises SpecError with one line per wrong field.

    A line names `source`, and the overrides that its field is from.
    """
    try:
        return JobSpec.model_validate(raw)
    except ValidationError as error:
        lines = [
            f"{source}{_given_by(place, overrides)}: {text}"
            for item in error.errors()
            for place, text in _complaints(item)
        ]
        raise SpecError("\n".join(lines)) from None


def spec_to_json(spec: JobSpec) -> dict[str, Any]:
    """Every field, defaults resolved, as JSON values."""
    return json.loads(spec.model_dump_json())


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise SpecError(f"--set {override!r}: write it as key=value, such as srl.max_steps=10")
    node = raw
    *parents, leaf = key.split(".")
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise SpecError(f"--set {override!r}: {parent!r} is not a group of fields")
        node = child
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {override!r}: the value is not YAML: {error}") from None


def _given_by(loc: Sequence[Any], overrides: Sequence[str]) -> str:
    """The overrides that gave a wrong field, or parts of it. Not their values: one may be a key."""
    place = tuple(map(str, loc))
    found: list[tuple[str, ...]] = []
    for override in overrides:
        key = tuple(override.partition("=")[0].split("."))
        if place[: len(key)] == key:
            found = [key]  # the whole field: what earlier ones gave is gone
        elif place and key[: len(place)] == place:
            found = [earlier for earlier in found if earlier[: len(key)] != key] + [key]
    return f" with {', '.join('.'.join(key) for key in found)} set" if found else ""


def _complaints(item: Any) -> list[tuple[tuple[Any, ...], str]]:
    """Of one pydantic error, each wrong field's place and `field: what is wrong (got value); fix`.

    A grader tells all that is wrong with it in one error, a line each.
    """
    loc = item["loc"]
    if isinstance(error := item.get("ctx", {}).get("error"), GraderSpecError):
        lines = str(error).splitlines()
        where = ".".join(map(str, loc))
        return [((*loc, *line.partition(":")[0].split(".")), f"{where}.{line}") for line in lines]
    return [
        (loc, describe_field(item, JobSpec) if loc else f"job: {describe_field(item, JobSpec)}")
    ]
