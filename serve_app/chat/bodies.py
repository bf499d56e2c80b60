"""Bodies of the chat and completion calls: every field is honoured or refused by name."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from rollout.live import SamplingExtras
from serve_app.chat.types import ChatModel, ChatRequest
from serve_app.request_types import ParamError, Request

MAX_CHOICES = 16
MAX_PROMPTS = 16
MAX_ROLLOUTS = 64  # choices of all prompts together
MAX_SEED = 2**63 - 1
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's, of /v1/completions
_NO_TOOLS = "models here call no tools; leave it out"
_NO_USE = "has no effect here; leave it out"
_TEXT_ONLY = "models here read and write text only; leave it out"

Temperature = Annotated[float, Field(ge=0, le=2)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Text = Annotated[str, Field(min_length=1)]


def _listed(value: Any) -> Any:
    """One text may stand for a list of one. Done here, an error names the field and no union."""
    return [value] if isinstance(value, str) else value


def _in_parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class StreamOptions(Request):
    """What a stream holds beside its pieces."""

    refusals: ClassVar[dict[str, str]] = {"include_obfuscation": _NO_USE}
    include_usage: bool = False
    include_obfuscation: Any = None


class TextPart(Request):
    """One part of a message's content."""

    auto_fields: ClassVar[tuple[str, ...]] = ("text",)
    type: Literal["text"]
    text: str


class Message(Request):
    """One message. An answer of this service can be sent back as it came."""

    auto_fields: ClassVar[tuple[str, ...]] = ("content", "reasoning_content")
    refusals: ClassVar[dict[str, str]] = {
        "tool_calls": _NO_TOOLS,
        "tool_call_id": _NO_TOOLS,
        "function_call": _NO_TOOLS,
        "audio": _TEXT_ONLY,
        "name": "chat templates here know no names of participants; leave it out",
        "refusal": "models here do not refuse in a field of its own; leave it out",
        "annotations": _NO_USE,
    }
    role: Literal["system", "user", "assistant"]
    content: Annotated[
        list[TextPart],
        BeforeValidator(_in_parts),
        Field(min_length=1, description="A string, or a list of text parts."),
    ]
    reasoning_content: str | None = None  # of earlier answers: never part of a prompt, as trained
    tool_calls: Any = None
    tool_call_id: Any = None
    function_call: Any = None
    audio: Any = None
    name: Any = None
    refusal: Any = None
    annotations: Any = None

    @model_validator(mode="after")
    def _thinks_of_an_answer(self) -> "Message":
        if self.reasoning_content is not None and self.role != "assistant":
            raise ParamError("reasoning_content", f"is the assistant's, not the {self.role}'s")
        return self

    def plain(self) -> dict[str, str]:
        """As chat templates take it."""
        return {"role": self.role, "content": "".join(part.text for part in self.content)}


class TextFormat(Request):
    """The one response format that every model has."""

    type: Literal["text"]


class Sampled(Request):
    """What both calls share."""

    auto_fields: ClassVar[tuple[str, ...]] = ("prompt", "stop")
    model: Annotated[str, Field(min_length=1, max_length=512)]
    temperature: Temperature | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Annotated[
        Annotated[list[Text], Field(max_length=4, description="A string, or up to 4.")] | None,
        BeforeValidator(_listed),
    ] = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: Any = None
    user: Any = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> "Sampled":
        if self.stream_options is not None and not self.stream:
            raise ParamError("stream_options", "is given, but `stream` is not true")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a piece that counts tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def _request(
        self,
        request_id: str,
        model: ChatModel,
        prompts: tuple[Any, ...],
        *,
        max_tokens: int | None,
        top_logprobs: int | None,
    ) -> ChatRequest:
        return ChatRequest(
            id=request_id,
            model=model,
            prompts=prompts,
            num_choices=self.n or 1,
            temperature=1.0 if self.temperature is None else self.temperature,
            max_tokens=max_tokens,
            extras=SamplingExtras(
                top_p=1.0 if self.top_p is None else self.top_p,
                presence_penalty=self.presence_penalty or 0.0,
                frequency_penalty=self.frequency_penalty or 0.0,
                seed=self.seed,
                top_logprobs=top_logprobs,
            ),
            stop=tuple(self.stop or ()),
            stream=bool(self.stream),
        )


_REFUSED = {
    "logit_bias": "is not implemented; leave it out",
    "user": _NO_USE,
}


class ChatBody(Sampled):
    """Body of POST /v1/chat/completions."""

    idle_auto: ClassVar[tuple[str, ...]] = ("tool_choice", "function_call", "service_tier")
    refusals: ClassVar[dict[str, str]] = {
        **_REFUSED,
        "tools": _NO_TOOLS,
        "tool_choice": _NO_TOOLS,
        "parallel_tool_calls": _NO_TOOLS,
        "functions": _NO_TOOLS,
        "function_call": _NO_TOOLS,
        "audio": _TEXT_ONLY,
        "prediction": "is not implemented; leave it out",
        "web_search_options": "models here search nothing; leave it out",
        "reasoning_effort": "a model thinks as long as it was trained to; leave it out",
        "verbosity": "a model writes as much as it was trained to; leave it out",
        "metadata": "answers are not stored here; leave it out",
        "service_tier": _NO_USE,
        "safety_identifier": _NO_USE,
        "prompt_cache_key": _NO_USE,
        "prompt_cache_retention": _NO_USE,
        "moderation": _NO_USE,
    }
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: TextFormat | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    moderation: Any = None

    @model_validator(mode="after")
    def _fields_agree(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ParamError("top_logprobs", "is given, but `logprobs` is not true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ParamError(
                "max_tokens", "is the old name of max_completion_tokens; give one of the two"
            )
        return self

    def request(self, request_id: str, model: ChatModel) -> ChatRequest:
        """The call in the engines' words."""
        return self._request(
            request_id,
            model,
            (tuple(message.plain() for message in self.messages),),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class CompletionBody(Sampled):
    """Body of POST /v1/completions."""

    refusals: ClassVar[dict[str, str]] = {
        **_REFUSED,
        "suffix": "models here only continue; leave it out",
    }
    prompt: Annotated[
        list[Text],
        BeforeValidator(_listed),
        Field(min_length=1, max_length=MAX_PROMPTS, description="A string, or several."),
    ]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None  # not implemented
    best_of: Literal[1] | None = None  # not implemented: ask for `n` and choose
    suffix: Any = None

    @model_validator(mode="after")
    def _is_not_too_much(self) -> "CompletionBody":
        if len(self.prompt) * (self.n or 1) > MAX_ROLLOUTS:
            raise ParamError("n", f"times the prompts is above {MAX_ROLLOUTS}")
        return self

    def request(self, request_id: str, model: ChatModel) -> ChatRequest:
        """The call in the engines' words."""
        return self._request(
            request_id,
            model,
            tuple(self.prompt),
            max_tokens=self.max_tokens or DEFAULT_COMPLETION_TOKENS,
            top_logprobs=self.logprobs,
        )
