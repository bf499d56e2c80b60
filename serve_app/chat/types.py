"""What travels between the chat routes and the engines. No torch, no vllm, no ray.

A request goes in; lists of `Chunk` come back, or a `Failure` as the last item. Failures travel as
items, not as exceptions, because they cross two process boundaries on the way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollout.live import SamplingExtras, TokenLogprob
from rollout.types import SamplingSpec

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ChatModel:
    """A model as it may be asked: where it lies and how it was trained to be sampled."""

    name: str  # as clients name it
    source: str  # a folder; with `on_hub`, a name on the hub
    on_hub: bool = False
    trained: bool = False  # False: a base model, sampled plainly through its chat template
    system: str | None = None  # system message of conversations that bring none
    # Of a trained model, with temperature 0; None: `single`, as long as the context allows.
    sampling: SamplingSpec | None = None
    max_model_len: int | None = None  # tokens of prompt and sample together, as trained
    dtype: str | None = None  # None: what the model's configuration says
    grader: dict[str, Any] | None = None  # the job's; decides which text a reader is shown


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call: `num_choices` samples of each prompt."""

    id: str  # unique over all callers
    model: ChatModel
    # Conversations, or raw texts for /v1/completions.
    prompts: tuple[Sequence[dict[str, str]] | str, ...]
    num_choices: int
    temperature: float
    max_tokens: int | None  # in all generations of a choice together
    extras: SamplingExtras
    stop: tuple[str, ...]  # end a choice where they occur in what is shown
    stream: bool  # False: nothing is sent before the whole is there

    @property
    def raw(self) -> bool:
        """Whether raw texts are continued, not conversations."""
        return isinstance(self.prompts[0], str)

    @property
    def num_rollouts(self) -> int:
        """Places that the request takes in an engine."""
        return self.num_choices * len(self.prompts)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one choice; the pieces in order are the whole."""

    index: int  # of the choice: prompt number * num_choices + number of the sample
    content: str = ""
    reasoning: str = ""  # from the think blocks
    logprobs: tuple[TokenLogprob, ...] = ()  # of every token sampled since the last piece
    finish_reason: FinishReason | None = None  # set in the choice's last piece
    prompt_tokens: int = 0  # in the last piece: of the choice's prompt
    completion_tokens: int = 0  # in the last piece: sampled, thinks included


def merge(chunks: Iterable[Chunk]) -> list[Chunk]:
    """One piece per choice that says what its pieces say."""
    pieces: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        pieces.setdefault(chunk.index, []).append(chunk)
    return [
        Chunk(
            index=index,
            content="".join(chunk.content for chunk in found),
            reasoning="".join(chunk.reasoning for chunk in found),
            logprobs=tuple(entry for chunk in found for entry in chunk.logprobs),
            finish_reason=found[-1].finish_reason,
            prompt_tokens=found[-1].prompt_tokens,
            completion_tokens=found[-1].completion_tokens,
        )
        for index, found in pieces.items()
    ]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no (further) answer, as the client is told."""

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after_s: float | None = None  # None: trying again is of no use


Item = list[Chunk] | Failure
