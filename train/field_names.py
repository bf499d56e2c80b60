"""What is wrong with a field, and what a field that nobody knows was meant to be."""

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel


def describe_field(item: Any, model: type[BaseModel] | None = None) -> str:
    """One of pydantic's errors as `field: what is wrong (got value); fix`; the whole has no field.

    `model`: what was read; with it an unknown field's nearest known one is named.
    """
    where = f"{'.'.join(map(str, item['loc']))}: " if item["loc"] else ""
    if item["type"] == "extra_forbidden":
        return f"{where}unknown field; {suggest_field(item['loc'], model)}"
    if item["type"] == "missing":
        return f"{where}is missing; add it"
    if item["type"] == "literal_error":
        return f"{where}is {item['input']!r}; choose {item['ctx']['expected']}"
    got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
    return f"{where}{item['msg'].removeprefix('Value error, ')}{got}"


def suggest_field(loc: Sequence[Any], model: type[BaseModel] | None) -> str:
    """Name the nearest known field of the object that `loc` ends in, of any kind it may be.

    `loc` is where pydantic met the unknown field, from `model` on; None: nothing is known of it.
    """
    models = [model] if model else []
    for part in loc[:-1]:
        fields = [field for m in models if (field := m.model_fields.get(str(part)))]
        if fields:  # else it is a key of a mapping, or a kind of a union
            models = [nested for field in fields for nested in _models_in(field.annotation)]
    if not models:
        return "remove it"
    known = list(dict.fromkeys(name for m in models for name in m.model_fields))
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(known)}"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
