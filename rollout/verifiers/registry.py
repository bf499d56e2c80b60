"""Which graders there are, and how one is read from a mapping.

`train.spec` and the service's grader routes read graders through here. Importing this module
imports no grader: each is loaded when a mapping names its type. A package adds one by an entry
point in the group `ferrata.graders`, whose name is the type and whose value a pydantic model with
`verify(problem, rollout)`; it may not take the name of a grader that stands here.
"""

import difflib
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, SerializeAsAny, ValidationError

ENTRY_POINT_GROUP = "ferrata.graders"
_HERE = "rollout.verifiers"
GRADER_TYPES: dict[str, str] = {
    "answer": f"{_HERE}.answer:AnswerVerifier",
    "code_tests": f"{_HERE}.code_tests:CodeTestsVerifier",
    "endpoint": f"{_HERE}.endpoint:EndpointGrader",
    "json_schema": f"{_HERE}.json_schema:JsonSchemaGrader",
    "label_model": f"{_HERE}.label_model:LabelModelGrader",
    "math": f"{_HERE}.math:MathGrader",
    "multi": f"{_HERE}.multi:MultiGrader",
    "python": f"{_HERE}.python_grader:PythonGrader",
    "reasoning_gym": f"{_HERE}.reasoning_gym:ReasoningGymGrader",
    "score_model": f"{_HERE}.score_model:ScoreModelGrader",
    "step_similarity": f"{_HERE}.step_similarity:StepSimilarityVerifier",
    "string_check": f"{_HERE}.string_check:StringCheckGrader",
    "text_similarity": f"{_HERE}.text_similarity:TextSimilarityGrader",
}


class GraderSpecError(ValueError):
    """A grader that cannot be read; one line per wrong field, with the fix. `param` is the first
    wrong field, dotted."""

    def __init__(self, lines: list[str], param: str) -> None:
        super().__init__("\n".join(lines))
        self.param = param


def _third_party() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def grader_types() -> list[str]:
    """Every type that can be named, those of other packages included."""
    return sorted({*GRADER_TYPES, *_third_party()})


def grader_class(name: str) -> type[BaseModel]:
    """Load the class for a type. Raises GraderSpecError that lists the choices."""
    if name in GRADER_TYPES:
        module, _, attribute = GRADER_TYPES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    entry = _third_party().get(name)
    if entry is None:
        known = grader_types()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        text = f"type: there is no grader {name!r}; {hint}choose {', '.join(known)}"
        raise GraderSpecError([text], "type")
    loaded = entry.load()
    if not (isinstance(loaded, type) and issubclass(loaded, BaseModel)):
        raise TypeError(f"{entry.value}, the grader {name!r}, is no pydantic model")
    if not callable(getattr(loaded, "verify", None)):
        raise TypeError(f"{entry.value}, the grader {name!r}, has no verify(problem, rollout)")
    return loaded


def parse_grader(raw: Any) -> Any:
    """Return the grader that a mapping describes; a grader is returned as it is.

    Raises GraderSpecError.
    """
    if isinstance(raw, BaseModel):
        return raw
    if not isinstance(raw, dict):
        text = f"a grader is a {type(raw).__name__}; write a mapping with a `type`"
        raise GraderSpecError([text], "")
    name = raw.get("type")
    if not isinstance(name, str):
        text = f"type: is {name!r}; choose {', '.join(grader_types())}"
        raise GraderSpecError([text], "type")
    model = grader_class(name)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_describe(item, model) for item in error.errors()]
        param = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise GraderSpecError(lines, param) from None


def _describe(item: Any, model: type[BaseModel]) -> str:
    """One pydantic error as "field: what is wrong (got value); fix"."""
    where = ".".join(str(part) for part in item["loc"]) or "as a whole"
    if item["type"] == "extra_forbidden":
        known = list(model.model_fields) if len(item["loc"]) == 1 else []
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(known)}"
        return f"{where}: unknown field; {hint if known else 'remove it'}"
    if item["type"] == "missing":
        return f"{where}: is missing; add it"
    if item["type"] == "literal_error":
        return f"{where}: is {item['input']!r}; choose {item['ctx']['expected']}"
    got = "" if isinstance(item["input"], dict) else f" (got {str(item['input'])[:200]!r})"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}{got}"


# The type of a specification's field that holds any grader: read from a mapping, written in full.
AnyGrader = Annotated[SerializeAsAny[BaseModel], BeforeValidator(parse_grader)]
