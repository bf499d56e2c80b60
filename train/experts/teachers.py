"""Teachers: whoever writes a step-wise solution of a problem when asked.

A teacher returns text and knows nothing of verdicts. That it does not answer, or not in the wire's
form, is a `TeacherError`: the infrastructure's fault and no verdict on a solution.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from rollout.verifiers.grader_keys import KeyName, read_key
from rollout.verifiers.http_json import HttpError, HttpUrl, Limits, post_json

Messages = Sequence[dict[str, str]]


class TeacherError(RuntimeError):
    """The teacher gave no text. `reason` is a short word for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Draft:
    """What a teacher wrote."""

    text: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Teacher(Protocol):
    """Writes solutions. Called from several threads at once."""

    @property
    def name(self) -> str:
        """Who it is, for a row's provenance."""
        ...

    def write(self, messages: Messages, seed: int) -> Draft:
        """Answer a conversation. Raises TeacherError."""
        ...


class EndpointTeacherSpec(BaseModel):
    """An OpenAI-compatible chat endpoint that writes solutions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["endpoint"] = "endpoint"
    base_url: HttpUrl  # ends with /v1
    model: Annotated[str, Field(min_length=1, max_length=512)]
    api_key_env: KeyName | None = None  # a secret of the project
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 2048
    max_rounds: Annotated[int, Field(ge=1, le=8)] = 3  # drafts of one problem, the first included
    concurrency: Annotated[int, Field(ge=1, le=64)] = 8  # problems asked at once
    limits: Limits = Limits(timeout_s=120.0, deadline_s=300.0)


class EndpointTeacher:
    """A teacher behind HTTP. Time-outs, 429 and 5xx are tried again within `limits`."""

    def __init__(self, spec: EndpointTeacherSpec) -> None:
        self.spec = spec

    @property
    def name(self) -> str:
        """The endpoint's model."""
        return f"endpoint:{self.spec.model}"

    def write(self, messages: Messages, seed: int) -> Draft:
        """Ask once. Raises TeacherError."""
        spec = self.spec
        body = {
            "model": spec.model,
            "messages": list(messages),
            "temperature": spec.temperature,
            "max_tokens": spec.max_tokens,
            "seed": seed,
        }
        url = f"{spec.base_url.rstrip('/')}/chat/completions"
        try:
            headers = {}
            if spec.api_key_env is not None:
                headers["authorization"] = f"Bearer {read_key(spec.api_key_env, url)}"
            reply = post_json(url, json.dumps(body).encode(), lambda attempt: headers, spec.limits)
        except HttpError as error:
            raise TeacherError("no_answer", str(error)) from None
        return read_reply(reply, spec.model)


def read_reply(reply: object, model: str) -> Draft:
    """The text of a chat completion. Raises TeacherError for what is none."""
    try:
        (choice,) = reply["choices"]  # type: ignore[index]
        text = choice["message"]["content"]
        usage = reply.get("usage") or {}  # type: ignore[union-attr, attr-defined]
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        named = reply.get("model") or model  # type: ignore[union-attr, attr-defined]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        shown = str(reply)[:200]
        raise TeacherError("malformed", f"no chat completion ({error!r}): {shown}") from None
    if not isinstance(text, str) or not text.strip():
        raise TeacherError("empty", f"the answer holds no text: {str(reply)[:200]}")
    return Draft(text, str(named), *counts)
