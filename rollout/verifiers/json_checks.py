"""Does a JSON value fit a schema, say something, and say the right thing? Runs in a child process.

A schema's patterns can take for ever on a sample written for that, and its references could ask
the network: the former is what the process's deadline is for, the latter finds an empty registry.
"""

from collections.abc import Callable, Mapping
from typing import Any


def check(argument: Any, mark: Callable[[str], None]) -> dict[str, bool]:
    """Check {"schema", "value", "reference"}: {"valid", "content", "matches"}."""
    from jsonschema.validators import validator_for
    from referencing import Registry

    schema, value = argument["schema"], argument["value"]
    validator = validator_for(schema)(schema, registry=Registry())
    mark("value")
    try:
        valid = validator.is_valid(value)
    except RecursionError:
        # Acceptable: the sample is nested deeper than a schema can follow.
        valid = False
    return {
        "valid": valid,
        "content": valid and has_content(value, schema),
        "matches": valid and all(
            matches(look_up(value, path), wanted) for path, wanted in argument["reference"].items()
        ),
    }  # fmt: skip


def has_content(value: Any, schema: Mapping[str, Any]) -> bool:
    """True when every required field, at every depth, holds something."""
    if is_empty(value):
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return all(
            has_content(value.get(name), properties.get(name, {}))
            for name in schema.get("required", [])
        )
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return all(has_content(item, schema["items"]) for item in value)
    return True


def is_empty(value: Any) -> bool:
    """None, no member, or text without a letter or digit; numbers and truth values are content."""
    if isinstance(value, str):
        return not any(character.isalnum() for character in value)
    return value is None or (isinstance(value, dict | list) and not value)


def look_up(value: Any, path: str) -> Any:
    """The member at "a.b.0", or None."""
    for step in path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def matches(value: Any, wanted: Any) -> bool:
    """Equal, texts but for case and white space; 1 is 1.0 and true is neither."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, str) and isinstance(wanted, str):
        return " ".join(value.split()).casefold() == " ".join(wanted.split()).casefold()
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(matches, value, wanted))
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(matches(value[k], wanted[k]) for k in wanted)
    return type(value) in (int, float, type(None)) and value == wanted
