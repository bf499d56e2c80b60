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

MIN_KEY_PART = 6  # characters of a key that are not shown
MAX_MESSAGE = 500  # characters of what a teacher's failure says
Messages = Sequence[dict[str, str]]
# reasons: the draft goes back with what is wrong with it; blind: the same question, another seed.
Repair = Literal["reasons", "blind"]


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


def repair_of(repair: Repair | None, temperature: float) -> Repair:
    """How a rejected draft is asked for again: as it was said, otherwise blindly.

    At temperature 0 a blind retry would be the same draft, so that reasons go back there.
    `benchmarks/repair.py` measured the two; its page is `docs/repair.md`.
    """
    return repair or ("blind" if temperature > 0 else "reasons")


class TokenPrice(BaseModel):
    """What a teacher's tokens cost, per million, in any one currency."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt_per_million: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    completion_per_million: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Of so many tokens."""
        return (
            prompt_tokens * self.prompt_per_million
            + completion_tokens * self.completion_per_million
        ) / 1e6


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
    repair: Repair | None = None  # how a rejected draft is asked for again; null: see `repair_of`
    concurrency: Annotated[int, Field(ge=1, le=64)] = 8  # problems asked at once
    limits: Limits = Limits(timeout_s=120.0, deadline_s=300.0)
    price: TokenPrice | None = None  # stated by the user; null: costs are not told


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
        key, headers = None, {}
        try:
            if spec.api_key_env is not None:
                key = read_key(spec.api_key_env, url)
                headers["authorization"] = f"Bearer {key}"
            reply = post_json(url, json.dumps(body).encode(), lambda attempt: headers, spec.limits)
            return read_reply(reply, spec.model)
        except HttpError as error:
            raise TeacherError("no_answer", _without(key, str(error))) from None
        except TeacherError as error:  # a server may echo what it was sent
            raise TeacherError(error.reason, _without(key, str(error))) from None


def _without(key: str | None, text: str) -> str:
    """The text, shortened, without the key, nor a beginning of it where the text had been cut."""
    for length in range(len(key or ""), MIN_KEY_PART - 1, -1):
        text = text.replace(str(key)[:length], "[secret]")
    return text[:MAX_MESSAGE]


def read_reply(reply: object, model: str) -> Draft:
    """The text of a chat completion. Raises TeacherError for what is none."""
    try:
        (choice,) = reply["choices"]  # type: ignore[index]
        text = choice["message"]["content"]
        usage = reply.get("usage") or {}  # type: ignore[union-attr, attr-defined]
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        named = reply.get("model") or model  # type: ignore[union-attr, attr-defined]
        f"{text}{named}".encode()  # a lone surrogate could be written to no file
        if min(counts) < 0:
            raise ValueError(f"a count of tokens below 0: {counts}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        shown = ascii(reply)[:200]
        raise TeacherError("malformed", f"no chat completion ({error!r}): {shown}") from None
    if not isinstance(text, str) or not text.strip():
        raise TeacherError("empty", f"the answer holds no text: {ascii(reply)[:200]}")
    return Draft(text, str(named), *counts)
