"""Pieces that request models are made of: strict bases, "auto" values, refusals, error paths.

A field of the contract that is not implemented is declared all the same (`Request.refusals`), so
that it is refused by name with what to do instead, and never accepted and ignored.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rollout.verifiers.registry import GraderSpecError
from train.field_names import suggest_field

AUTO = "auto"


class RequestError(ValueError):
    """A request that cannot be honoured: answered with 400 and `param`."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class ParamError(ValueError):
    """Raised inside validators of a whole object, to name the field inside it that is wrong."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class Request(BaseModel):
    """JSON as it came: no text becomes a number, an unknown field is an error.

    A field that is "auto" counts as left out, unless `auto_fields` names it: the word is a value
    there. `refusals` names the known fields that are not implemented, with what to do instead; only
    null is accepted there, and "auto" where `idle_auto` says that it asks for nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    auto_fields: ClassVar[tuple[str, ...]] = ()
    idle_auto: ClassVar[tuple[str, ...]] = ()
    instead_of_auto: ClassVar[str] = "give a value"  # where a required field is "auto"
    refusals: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _auto_is_absent(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        open_ = cls.model_fields.keys() - cls.auto_fields - (cls.refusals.keys() - cls.idle_auto)
        automatic = {name for name in open_ if raw.get(name) == AUTO}
        for name, field in cls.model_fields.items():
            if name not in automatic or not field.is_required():
                continue
            if get_origin(field.annotation) is not Literal:  # whose choices are named instead
                raise ParamError(
                    name, f"is 'auto', but nothing here can choose it; {cls.instead_of_auto}"
                )
            automatic.remove(name)
        return {name: value for name, value in raw.items() if name not in automatic}

    @field_validator("*", mode="before")
    @classmethod
    def _refuse(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.field_name in cls.refusals:
            raise ValueError(cls.refusals[info.field_name])
        return value


def parse_request(model: type[BaseModel], body: Any) -> Any:
    """Return the request. Raises RequestError that names the first wrong field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise request_error(error.errors(), model) from None


def request_error(errors: Sequence[Any], model: type[BaseModel] | None = None) -> RequestError:
    """One error for all of pydantic's; `param` is the first field, dotted.

    FastAPI's own "body" prefix is left out, so that its errors can be handed in too.
    """
    described = [_describe(item, model) for item in errors]
    message = "; ".join(f"{param}: {text}" if param else text for param, text in described)
    first = errors[0]
    code = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
    return RequestError(message, described[0][0] or None, code.get(first["type"], "invalid_value"))


def _describe(item: Any, model: type[BaseModel] | None) -> tuple[str, str]:
    """(dotted field, what is wrong and what to write)."""
    loc = [part for part in item["loc"] if part != "body"]
    inner = item.get("ctx", {}).get("error")
    if isinstance(inner, ParamError | GraderSpecError) and inner.param:
        loc.append(inner.param)
    param = ".".join(str(part) for part in loc)
    if isinstance(inner, GraderSpecError):
        return param, str(inner).replace("\n", "; ")
    if item["type"] == "extra_forbidden":
        return param, f"unknown field; {suggest_field(loc, model)}"
    if item["type"] == "missing":
        return param, "is missing; add it"
    if item["type"] == "literal_error":
        return param, f"is {item['input']!r}; choose {item['ctx']['expected']}"
    text = item["msg"].removeprefix("Value error, ")
    shown = isinstance(item["input"], str | int | float | bool) and inner is None
    return param, f"{text} (got {item['input']!r})" if shown else text
