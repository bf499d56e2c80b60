"""Templates such as "{{ item.answer }}" and "{{sample.output_json.steps[0].text}}".

Two namespaces: `item`, the row's own fields, and `sample`, what the policy produced
(`base.sample_of`). A path walks mappings by key and lists by index and nothing else: no
attributes, filters or expressions, and what was filled in is never read as a template again.
Wrong templates are refused when a grader is parsed.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from rollout.verifiers.base import InvalidVariableError, SampleParseError

SAMPLE_FIELDS = ("output_text", "output_json", "output_tools", "choices")
_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PATH = re.compile(r"\s*(item|sample)((?:\s*\.\s*[\w-]+|\s*\[\s*\d+\s*\])*)\s*")
_STEP = re.compile(r"[\w-]+")


class SampleVariableError(InvalidVariableError, SampleParseError):
    """The sample's JSON lacks what a template names: the sample's fault, a reward of 0."""


def parse_path(expression: str) -> tuple[str, ...]:
    """Return ("item", "a", "0") for "item.a[0]". Raises ValueError that names the fix."""
    match = _PATH.fullmatch(expression)
    if match is None:
        raise ValueError(
            f"{{{{{expression}}}}} is no variable: write {{{{ item.<field> }}}} or "
            f"{{{{ sample.<field> }}}}, with .<key> and [<index>] to go deeper"
        )
    path = (match[1], *_STEP.findall(match[2]))
    if len(path) < 2:
        raise ValueError(f"{{{{{expression}}}}} names no field: write {{{{ {path[0]}.<field> }}}}")
    if path[0] == "sample" and path[1] not in SAMPLE_FIELDS:
        raise ValueError(
            f"{{{{{expression}}}}}: a sample has no {path[1]!r}; choose {', '.join(SAMPLE_FIELDS)}"
        )
    return path


def _check(template: str) -> str:
    for match in _BRACES.finditer(template):
        parse_path(match[1])
    return template


# A text with variables in it, checked when it is read.
Template = Annotated[str, AfterValidator(_check)]


def variables(template: str) -> list[tuple[str, ...]]:
    """The paths that a template names, in order."""
    return [parse_path(match[1]) for match in _BRACES.finditer(template)]


def check_item(template: str, item: Mapping[str, Any]) -> None:
    """Raise InvalidVariableError when a row lacks what the template reads of it."""
    for path in variables(template):
        if path[0] == "item":
            look_up(path, {"item": item})


def look_up(path: tuple[str, ...], namespaces: Mapping[str, Any]) -> Any:
    """Return the value at `path`.

    Raises InvalidVariableError when the row lacks it, SampleVariableError when the sample does.
    """
    value: Any = namespaces
    for depth, step in enumerate(path):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            where, missing = ".".join(path[:depth]) or "the template", ".".join(path)
            error = SampleVariableError if path[0] == "sample" else InvalidVariableError
            raise error(f"{{{{ {missing} }}}}: {where} has no {step!r}{_choices(value)}")
    return value


def _choices(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"; it has {', '.join(map(str, list(value)[:20])) or 'no fields'}"
    return f"; it is a {type(value).__name__}" if value is not None else "; it is null"


def render_text(template: str, item: Mapping[str, Any], sample: Mapping[str, Any] | None) -> str:
    """Fill in every variable: text as it is, other values as JSON.

    `sample` is None where a template may not depend on the sample.
    """
    namespaces = {"item": item} if sample is None else {"item": item, "sample": sample}

    def fill(match: re.Match[str]) -> str:
        path = parse_path(match[1])
        if path[0] not in namespaces:
            raise InvalidVariableError(f"{match[0]}: a reference cannot depend on the sample")
        value = look_up(path, namespaces)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _BRACES.sub(fill, template)
