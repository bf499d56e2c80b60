"""Answers as OpenAI's clients read them: whole, or piece by piece. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollout.live import TokenLogprob
from serve_app.chat.types import ChatRequest, Chunk

LEAST_LOGPROB = -9999.0  # what OpenAI writes for "impossible"; JSON knows no infinity


@dataclass(frozen=True)
class Answer:
    """What every object of one answer carries."""

    request: ChatRequest
    created: int

    def base(self, *, streamed: bool) -> dict[str, Any]:
        """The fields of a whole answer, or of one piece."""
        if self.request.raw:
            kind = "text_completion"
        else:
            kind = "chat.completion.chunk" if streamed else "chat.completion"
        return {
            "id": self.request.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model.name,
        }


@dataclass
class _Choice:
    """One choice, gathered from its pieces."""

    content: str = ""
    reasoning: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None


class Usage:
    """Counts tokens over the pieces of an answer; a prompt counts once, thinks count."""

    def __init__(self, num_choices: int) -> None:
        self._num_choices = num_choices
        self._prompt, self._completion = 0, 0

    def add(self, chunk: Chunk) -> None:
        """Count a piece."""
        self._completion += chunk.completion_tokens
        if chunk.index % self._num_choices == 0:
            self._prompt += chunk.prompt_tokens

    def value(self) -> dict[str, int]:
        """The `usage` object."""
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": self._completion,
            "total_tokens": self._prompt + self._completion,
        }


def whole_answer(answer: Answer, chunks: Iterable[Chunk]) -> dict[str, Any]:
    """The answer to a call that is not streamed."""
    request = answer.request
    choices = [_Choice() for _ in range(request.num_rollouts)]
    usage = Usage(request.num_choices)
    for chunk in chunks:
        choice = choices[chunk.index]
        choice.content += chunk.content
        choice.reasoning += chunk.reasoning
        choice.logprobs += chunk.logprobs
        choice.finish_reason = chunk.finish_reason or choice.finish_reason
        usage.add(chunk)
    return {
        **answer.base(streamed=False),
        "choices": [_whole_choice(request, i, choice) for i, choice in enumerate(choices)],
        "usage": usage.value(),
    }


def _whole_choice(request: ChatRequest, index: int, choice: _Choice) -> dict[str, Any]:
    logprobs = _logprobs(request, choice.logprobs, 0)
    if request.raw:
        shown: dict[str, Any] = {"text": choice.content}
    else:
        message = {"role": "assistant", "content": choice.content, "refusal": None}
        shown = {"message": message | {"reasoning_content": choice.reasoning or None}}
    return {
        "index": index,
        **shown,
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
    }


class Pieces:
    """The pieces of a streamed answer, in order."""

    def __init__(self, answer: Answer, *, include_usage: bool) -> None:
        self._answer, self._include_usage = answer, include_usage
        self._usage = Usage(answer.request.num_choices)
        self._offsets = [0] * answer.request.num_rollouts  # of each choice's text so far

    def opening(self) -> list[dict[str, Any]]:
        """The first piece of every choice: who speaks."""
        if self._answer.request.raw:
            return []
        delta = {"role": "assistant", "content": ""}
        return [
            self._piece([{"index": i, "delta": delta, "logprobs": None, "finish_reason": None}])
            for i in range(self._answer.request.num_rollouts)
        ]

    def add(self, chunk: Chunk) -> dict[str, Any]:
        """The piece for a chunk."""
        request = self._answer.request
        self._usage.add(chunk)
        offset = self._offsets[chunk.index]
        self._offsets[chunk.index] += sum(len(entry.text) for entry in chunk.logprobs)
        if request.raw:
            shown: dict[str, Any] = {"text": chunk.content}
        else:
            delta = {"content": chunk.content, "reasoning_content": chunk.reasoning}
            shown = {"delta": {name: text for name, text in delta.items() if text}}
        choice = {
            "index": chunk.index,
            **shown,
            "logprobs": _logprobs(request, chunk.logprobs, offset) if chunk.logprobs else None,
            "finish_reason": chunk.finish_reason,
        }
        return self._piece([choice])

    def closing(self) -> list[dict[str, Any]]:
        """The last piece: the counts, where they were asked for."""
        return [self._piece([]) | {"usage": self._usage.value()}] if self._include_usage else []

    def _piece(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self._include_usage else {}
        return {**self._answer.base(streamed=True), "choices": choices, **usage}


def _logprobs(
    request: ChatRequest, entries: Sequence[TokenLogprob], offset: int
) -> dict[str, Any] | None:
    """Of every sampled token, those of thinks included; None where they were not asked for."""
    if request.extras.top_logprobs is None:
        return None
    if request.raw:
        return _legacy_logprobs(entries, offset)
    content = [
        _token(entry.text, entry.logprob)
        | {"top_logprobs": [_token(text, logprob) for text, logprob in entry.top]}
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _legacy_logprobs(entries: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.text)
    return {
        "tokens": [entry.text for entry in entries],
        "token_logprobs": [_finite(entry.logprob) for entry in entries],
        "top_logprobs": [
            {text: _finite(logprob) for text, logprob in entry.top} for entry in entries
        ],
        "text_offset": offsets,
    }


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode())}


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
