"""JSON from untrusted programs: parsed by the letter, compared with strict types."""

import json
from collections.abc import Iterable
from typing import Any, NoReturn

MAX_DEPTH = 200


class NotStrictJSONError(ValueError):
    """The text is no JSON, or holds NaN, an infinity, a name twice, or is nested too deeply."""


def parse_strictly(text: str) -> Any:
    """Parse `text`. Raises NotStrictJSONError, and nothing else, whatever the text is."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: also integers too long to convert
        raise NotStrictJSONError(f"not strict JSON: {error}") from None
    level, depth = [value], 0
    while level := [child for parent in level for child in _children(parent)]:
        if (depth := depth + 1) > MAX_DEPTH:
            raise NotStrictJSONError(f"nested more than {MAX_DEPTH} deep")
    return value


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise NotStrictJSONError("a name occurs twice in an object")
    return names


def _refuse_constant(name: str) -> NoReturn:
    raise NotStrictJSONError(f"{name} is no JSON value")


def same_json(a: Any, b: Any) -> bool:
    """Equality of two JSON values in which true, 1 and 1.0 all differ.

    Walks without recursion: the depth of a value is the untrusted program's choice.
    """
    pairs = [(a, b)]
    while pairs:
        x, y = pairs.pop()
        if type(x) is not type(y):
            return False
        if isinstance(x, dict):
            if x.keys() != y.keys():
                return False
            pairs += [(x[name], y[name]) for name in x]
        elif isinstance(x, list):
            if len(x) != len(y):
                return False
            pairs += zip(x, y, strict=True)
        elif x != y:
            return False
    return True
