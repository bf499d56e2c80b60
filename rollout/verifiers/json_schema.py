"""Is the sample JSON of the right form, with content?

A schema alone would reward valid but empty objects, which is what a policy soon writes: so every
required field has to hold something, and fields named in `reference` have to hold the right thing.
"""

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from rollout.steps import visible_text
from rollout.types import Problem, Rollout
from rollout.verifiers.base import Grade, Grader, GraderError, Seconds, parse_json
from rollout.verifiers.process import CallOverrunError, call_within
from rollout.verifiers.templates import Template, look_up, parse_path, render_text, variables

CHECK = "rollout.verifiers.json_checks:check"


class JsonSchemaGrader(Grader):
    """Scores 1 when the last turn is JSON that fits, has content and matches, else 0."""

    type: Literal["json_schema"] = "json_schema"
    name: str = "json_schema"
    json_schema: dict[str, Any]
    # Path in the sample's JSON -> what it must hold, such as {"answer": "{{ item.answer }}"}.
    # A value that is one variable keeps the type it has in the row.
    reference: dict[str, Template] = Field(default_factory=dict)
    deadline_s: Seconds = 5.0  # for one verdict
    max_characters: PositiveInt = 100_000  # of the sample; longer ones score 0 unread

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        try:
            validator_for(schema).check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"is no JSON schema: {error.json_path}: {error.message}") from None
        for reference in _references(schema):
            if not reference.startswith("#"):
                raise ValueError(
                    f"refers to {reference!r}: write the definition into the schema ($defs) and "
                    "refer to it with '#/$defs/...'"
                )
        return schema

    @model_validator(mode="after")
    def _asks_for_content(self) -> "JsonSchemaGrader":
        if not self.json_schema.get("required") and not self.reference:
            raise ValueError(
                "the schema requires no field, so an empty object would score: list `required` "
                "fields, or give `reference` values"
            )
        return self

    def read_last_turn(self, text: str) -> str:
        """What it reads out of a rollout: the last turn's visible text as a whole."""
        return visible_text(text)

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        reference = {p: _wanted(value, problem.item) for p, value in self.reference.items()}
        text = self.read_last_turn(rollout.turns[-1].text)
        if len(text) > self.max_characters:
            return Grade(0.0, details={"too_long": 1.0})
        try:
            value = parse_json(text)
        except ValueError:
            # Acceptable: the sample is no JSON.
            return Grade(0.0, format_error=True)
        argument = {"schema": self.json_schema, "value": value, "reference": reference}
        try:
            result = call_within(CHECK, argument, self.deadline_s)
        except CallOverrunError as error:
            if error.stage is None:
                raise GraderError(f"the grader {self.name!r}: its schema {error}") from None
            return Grade(0.0, details={"timeout": 1.0})
        details = {key: float(holds) for key, holds in result.items()}
        return Grade(float(all(result.values())), not result["valid"], details=details)


def _wanted(template: str, item: dict[str, Any]) -> Any:
    paths = variables(template)
    if len(paths) == 1 and template.strip() == template and template.count("}}") == 1:
        inner = template.removeprefix("{{").removesuffix("}}")
        if f"{{{{{inner}}}}}" == template and parse_path(inner)[0] == "item":
            return look_up(paths[0], {"item": item})
    return render_text(template, item, None)


def _references(schema: Any) -> list[str]:
    """Every `$ref` in a schema."""
    if isinstance(schema, dict):
        own = [v for k, v in schema.items() if k in ("$ref", "$dynamicRef") and isinstance(v, str)]
        return own + [found for value in schema.values() for found in _references(value)]
    if isinstance(schema, list):
        return [found for value in schema for found in _references(value)]
    return []
