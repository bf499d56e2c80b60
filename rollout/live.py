"""A rollout in the making: what the sampler asks for next, and when the rollout ends.

The step loop of training, evaluation and chat is this one class. It is arithmetic over tokens and
texts: `rollout.engine` runs the requests that it describes, and nobody else calls it.
"""

from dataclasses import dataclass, field
from typing import Any

from rollout.steps import THINK_CLOSE, THINK_OPEN, parse_step
from rollout.types import FinishReason, Problem, Rollout, SamplingSpec, Turn


@dataclass(frozen=True, slots=True)
class SamplingExtras:
    """What a chat request may ask for beyond a job's `SamplingSpec`. Training uses the defaults."""

    top_p: float = 1.0
    presence_penalty: float = 0.0  # within one generation, as is the next
    frequency_penalty: float = 0.0
    seed: int | None = None  # None: the engine's own generator
    # Tell every sampled token's log-probability with so many alternatives; None: do not.
    top_logprobs: int | None = None
    max_total_tokens: int | None = None  # sampled in all turns together; None: no further limit
    add_special_tokens: bool = False  # to the prompt; a chat template has placed them already
    incremental: bool = False  # True: every engine step tells what it added


NO_EXTRAS = SamplingExtras()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A sampled token with its log-probability and its likeliest alternatives."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]  # (text, log-probability), likeliest first


@dataclass(frozen=True, slots=True)
class Update:
    """What one engine step did for one submitted rollout."""

    key: Any  # as it was submitted
    text: str  # added to the current turn
    num_tokens: int  # sampled by this step
    logprobs: tuple[TokenLogprob, ...]  # of these tokens; empty unless asked for
    turn: Turn | None  # the turn that ended
    rollout: Rollout | None  # the whole, once it has ended


class ContextLengthError(ValueError):
    """The prompt leaves no room for a single sampled token."""

    def __init__(self, num_tokens: int, max_model_len: int) -> None:
        super().__init__(f"the prompt has {num_tokens} tokens; the context holds {max_model_len}")
        self.num_tokens, self.max_model_len = num_tokens, max_model_len


@dataclass
class LiveRollout:
    """One rollout on its way through an engine."""

    key: Any  # the caller's name for it
    problem: Problem
    sampling: SamplingSpec
    max_model_len: int  # tokens of prompt and sample together
    extras: SamplingExtras
    context: str  # prompt of the current turn, thinks of earlier turns left out
    turns: list[Turn] = field(default_factory=list)
    # The current turn so far: more than one piece when `step_end` occurs inside a think block.
    prompt_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    num_requests: int = 0
    num_sampled: int = 0  # tokens of the turns that have ended

    def begin_turn(self, tokenizer: Any) -> None:
        """Encode the context as the prompt of the next turn."""
        special = self.extras.add_special_tokens and not self.turns
        self.prompt_ids = tokenizer.encode(self.context, add_special_tokens=special)
        self.token_ids, self.logprobs = [], []
        self.text, self.num_requests = "", 0

    def room(self) -> int:
        """Tokens that the current turn may still take, by every limit; below 1: none."""
        in_context = self.max_model_len - len(self.prompt_ids) - len(self.token_ids)
        room = min(self.sampling.max_tokens - len(self.token_ids), in_context)
        if self.extras.max_total_tokens is not None:
            sampled = self.num_sampled + len(self.token_ids)
            room = min(room, self.extras.max_total_tokens - sampled)
        return room

    def total_requests(self) -> int:
        """Requests asked of the engine so far, in all turns."""
        return self.num_requests + sum(turn.num_requests for turn in self.turns)

    def add(self, sample: Any) -> None:
        """Take what vLLM sampled: the whole of a request, or what one step added to it."""
        self.token_ids += sample.token_ids
        self.logprobs += [
            step[token].logprob
            for step, token in zip(sample.logprobs, sample.token_ids, strict=True)
        ]
        self.text += sample.text

    def end_request(self, sample: Any, policy_version: int) -> Turn | None:
        """Judge a finished request. None: the same turn goes on, with its think block open."""
        finish: FinishReason = "length"
        if sample.finish_reason == "stop":
            # A model may have several end tokens; for all but the first vLLM names the token.
            finish = "step_end" if sample.stop_reason == self.sampling.step_end else "end"
        elif sample.finish_reason != "length":
            raise RuntimeError(
                f"vLLM finished a request of {self.problem.id} with {sample.finish_reason!r}"
            )
        thinking = self.text.count(THINK_OPEN) > self.text.count(THINK_CLOSE)
        if finish == "step_end" and thinking:
            if self.room() > 0:
                self.text += self.sampling.step_end
                return None
            finish = "length"
        turn = Turn(
            prompt_ids=tuple(self.prompt_ids),
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            text=self.text,
            finish=finish,
            policy_versions=((policy_version, len(self.token_ids)),),
            num_requests=self.num_requests,
        )
        self.turns.append(turn)
        self.num_sampled += len(self.token_ids)
        return turn

    def goes_on(self, tokenizer: Any) -> bool:
        """Whether a further turn follows the one that just ended; extends the context for it."""
        turn = self.turns[-1]
        step = parse_step(turn.text)
        if turn.finish != "step_end" or step is None or len(self.turns) >= self.sampling.max_turns:
            return False
        limit = self.extras.max_total_tokens
        if limit is not None and self.num_sampled >= limit:
            return False
        self.context += step + self.sampling.step_end
        # The next turn needs room for at least one token; a context that is full is cut off here.
        num_ids = len(tokenizer.encode(self.context, add_special_tokens=False))
        return num_ids < self.max_model_len

    def token_logprobs(self, sample: Any) -> tuple[TokenLogprob, ...]:
        """vLLM's mappings {token id: entry} as records, where these were asked for."""
        count = self.extras.top_logprobs
        if count is None:
            return ()
        records = []
        for token, entries in zip(sample.token_ids, sample.logprobs, strict=True):
            top = sorted(entries.values(), key=lambda entry: entry.rank)[:count]
            tops = tuple((entry.decoded_token or "", entry.logprob) for entry in top)
            chosen = entries[token]
            records.append(TokenLogprob(chosen.decoded_token or "", chosen.logprob, tops))
        return tuple(records)
