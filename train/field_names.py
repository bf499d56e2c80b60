"""What a field that nobody knows was meant to be."""

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel


def suggest_field(loc: Sequence[Any], model: type[BaseModel] | None) -> str:
    """Name the nearest known field of the object that `loc` ends in, of any kind it may be.

    `loc` is where pydantic met the unknown field, from `model` on; None: nothing is known of it.
    """
    models = [model] if model else []
    for part in loc[:-1]:
        fields = [field for m in models if (field := m.model_fields.get(str(part)))]
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
