"""Asks a model to judge: any OpenAI-compatible endpoint, an answer of one strict form.

Shared by `score_model` and `label_model`. The judge sees only what the grader's `input` names.
Refusals, truncated answers and answers of another form are errors, never scores. A sample that
is a mere opener, such as ":" or "Thought process:", is not put before a judge, since judges are
known to be taken in by it: it scores 0.
"""

import json
import os
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from rollout.types import Problem, Rollout
from rollout.verifiers.base import (
    Grader,
    ModelGraderParseError,
    ModelGraderRefusalError,
    ModelGraderServerError,
    SampleParseError,
    TokenUsage,
    parse_json,
    sample_of,
)
from rollout.verifiers.grader_keys import KeyName, read_key
from rollout.verifiers.http_json import HttpError, HttpUrl, Limits, post_json
from rollout.verifiers.templates import Template, render_text

BASE_URL_VARIABLE = "FERRATA_GRADER_BASE_URL"
KEY_VARIABLE = "FERRATA_GRADER_API_KEY"
MAX_OPENER_CHARACTERS = 60


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(_Part):
    """A block of text. Images and sound are refused: a policy here produces text."""

    type: Literal["input_text", "output_text", "text"]
    text: Template


class Message(_Part):
    """One message to the judge; its content may hold variables."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Template | TextPart | list[TextPart | Template]

    def render(self, item: dict[str, Any], sample: dict[str, Any]) -> dict[str, str]:
        """The message as chat endpoints take it."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        texts = [part if isinstance(part, str) else part.text for part in parts]
        filled = [render_text(text, item, sample) for text in texts]
        return {"role": self.role, "content": "\n".join(filled)}


class SamplingParams(_Part):
    """How the judge samples; what is None is left to the endpoint."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    max_completions_tokens: PositiveInt | None = None
    reasoning_effort: str | None = None

    def body(self) -> dict[str, Any]:
        """The request's fields."""
        given = self.model_dump(exclude_none=True)
        if "max_completions_tokens" in given:  # the grader contract's spelling of this field
            given["max_completion_tokens"] = given.pop("max_completions_tokens")
        return given


class JudgeGrader(Grader):
    """What both model graders are made of."""

    model: Annotated[str, Field(min_length=1)]
    input: Annotated[tuple[Message, ...], Field(min_length=1)]
    sampling_params: SamplingParams = SamplingParams()
    # An address that ends in /v1. None: the worker's FERRATA_GRADER_BASE_URL.
    base_url: HttpUrl | None = None
    api_key_env: KeyName | None = None  # None: FERRATA_GRADER_API_KEY, for that address only
    limits: Limits = Limits()

    @field_validator("sampling_params", mode="before")
    @classmethod
    def _may_be_null(cls, value: object) -> object:
        return {} if value is None else value

    @model_validator(mode="after")
    def _has_an_endpoint(self) -> "JudgeGrader":
        if not (self.base_url or os.environ.get(BASE_URL_VARIABLE)):
            raise ValueError(
                f"no endpoint for the model {self.model!r}: give `base_url`, or set "
                f"{BASE_URL_VARIABLE}"
            )
        if self.base_url and self.api_key_env == KEY_VARIABLE:
            raise ValueError(f"{KEY_VARIABLE} is sent only to the address in {BASE_URL_VARIABLE}")
        return self

    def ask(
        self, problem: Problem, rollout: Rollout, schema: dict[str, Any]
    ) -> tuple[dict[str, Any], TokenUsage, str]:
        """Return the judge's answer, its tokens, and the model that the endpoint names.

        The answer is an object with exactly the schema's properties; their values are unchecked.
        """
        sample = sample_of(rollout)
        if is_empty_opener(sample["output_text"]):
            raise SampleParseError("the sample holds nothing to judge")
        body = {
            "model": self.model,
            "messages": [message.render(problem.item, sample) for message in self.input],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": schema},
            },
            **self.sampling_params.body(),
        }
        reply = self._post(json.dumps(body).encode())
        answer = read_answer(reply, set(schema["properties"]))
        return answer, read_usage(reply), str(reply.get("model") or self.model)

    def _post(self, body: bytes) -> dict[str, Any]:
        base_url = self.base_url or os.environ.get(BASE_URL_VARIABLE)
        if not base_url:
            raise ModelGraderServerError(f"{BASE_URL_VARIABLE} is not set on this worker: set it")
        try:
            url = f"{base_url.rstrip('/')}/chat/completions"
            headers = self._headers(url)
            trusted = self.base_url is None  # the variable is the worker's own
            reply = post_json(url, body, lambda attempt: headers, self.limits, trusted=trusted)
        except HttpError as error:
            raise ModelGraderServerError(str(error)) from None
        if not isinstance(reply, dict):
            raise ModelGraderServerError(f"{url} answered with a {type(reply).__name__}")
        return reply

    def _headers(self, url: str) -> dict[str, str]:
        name = self.api_key_env or (KEY_VARIABLE if self.base_url is None else None)
        if name is None or (self.api_key_env is None and not os.environ.get(name)):
            return {}
        return {"authorization": f"Bearer {read_key(name, url, trusted=self.base_url is None)}"}


def is_empty_opener(text: str) -> bool:
    """True for a text without a letter or digit, and for one short line that only announces."""
    stripped = text.strip().rstrip("*_ ")
    if not re.search(r"\w", stripped):
        return True
    return (
        len(stripped) <= MAX_OPENER_CHARACTERS and "\n" not in stripped and stripped.endswith(":")
    )


def read_answer(reply: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """Return the object in a chat completion. Raises the matching model grader error."""
    try:
        choice = reply["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        refusal, content = message.get("refusal"), message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ModelGraderServerError(
            f"the judge's endpoint sent no chat completion: {json.dumps(reply)[:200]}"
        ) from None
    if refusal or finish == "content_filter":
        raise ModelGraderRefusalError(f"the judge refused: {str(refusal or finish)[:200]}")
    if finish == "length":
        raise ModelGraderParseError("the judge was cut off: raise max_completions_tokens")
    try:
        answer = parse_json(content) if isinstance(content, str) else None
    except ValueError as error:
        raise ModelGraderParseError(
            f"the judge wrote no JSON ({error}): {content[:200]!r}"
        ) from None
    if not isinstance(answer, dict) or set(answer) != fields:
        raise ModelGraderParseError(
            f"the judge wrote {str(content)[:200]!r}, not an object with {sorted(fields)}"
        )
    return answer


def read_usage(reply: dict[str, Any]) -> TokenUsage:
    """The tokens that the endpoint counted; what it does not count is 0."""
    usage = reply.get("usage")
    counts = [
        value if isinstance(value := (usage or {}).get(key), int) and value >= 0 else 0
        for key in ("prompt_tokens", "completion_tokens")
    ]
    return TokenUsage(*counts)
