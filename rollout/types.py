"""The vocabulary that every package shares. No torch, no vllm, no ray.

It lies in the lowest package, so that `train` and `serve_app` may import it. Records are frozen:
they cross process boundaries.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

InferenceProtocol = Literal["single", "stepwise"]
FinishReason = Literal["end", "step_end", "length"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to solve, ready to sample from."""

    id: str  # unique in its data set: "train:17" or, for an SRL instance, "train:17/step-2"
    prompt: str  # rendered chat template, earlier steps included, up to the policy's first token
    reference_answer: str | None = None  # what an answer verifier compares with
    expert_step: str | None = None  # SRL's target; None for a whole problem
    expert_step_is_last: bool = False  # the expert ends the turn after this step
    item: dict[str, Any] = field(default_factory=dict)  # the row's own fields, for graders


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """How to sample a rollout. The export's card states the same values."""

    protocol: InferenceProtocol
    max_tokens: int  # tokens in one generation: a step (stepwise) or the whole solution (single)
    max_turns: int = 1  # generations in one rollout; above 1 only for stepwise
    temperature: float = 1.0  # 0 is greedy
    step_end: str = "\n"  # text that closes a step which is not the last (stepwise only)


@dataclass(frozen=True, slots=True)
class Turn:
    """One generation. For every t, `logprobs[t]` is the sampler's for `token_ids[t]`."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]  # sampled tokens, the end token included
    logprobs: tuple[float, ...]  # natural log, after temperature, same length as token_ids
    text: str  # decoded sample without special tokens and without the closing `step_end`
    finish: FinishReason  # "end": the policy ended its turn; "length": it was cut off
    # (policy version, number of tokens) in order; one run when no weights changed underway
    policy_versions: tuple[tuple[int, int], ...]
    num_requests: int = 1  # asked of the engine; more when `step_end` occurred inside a think block


@dataclass(frozen=True, slots=True)
class Rollout:
    """One attempt at a problem: one turn under `single`, one or more under `stepwise`."""

    problem_id: str
    turns: tuple[Turn, ...]

    @property
    def finished(self) -> bool:
        """True when the policy itself ended its turn; no evaluator stops it."""
        return self.turns[-1].finish == "end"

    @property
    def num_requests(self) -> int:
        """Requests that the engine finished for this rollout."""
        return sum(turn.num_requests for turn in self.turns)

    @property
    def num_tokens(self) -> int:
        """Sampled tokens over all turns."""
        return sum(len(turn.token_ids) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verifier's judgement of one rollout. What we failed to judge has no verdict (None)."""

    reward: float
    format_error: bool = False  # the sample's form was wrong, whatever its content
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """G rollouts of one problem, with a verdict (or None) for each."""

    problem: Problem
    rollouts: tuple[Rollout, ...]
    verdicts: tuple[Verdict | None, ...]

    def scored(self) -> list[tuple[Rollout, Verdict]]:
        """The rollouts that have a verdict, with it."""
        pairs = zip(self.rollouts, self.verdicts, strict=True)
        return [(rollout, verdict) for rollout, verdict in pairs if verdict is not None]


class Verifier(Protocol):
    """Scores one rollout. Raises only when the verifier itself is at fault."""

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict: ...


class GenerateFn(Protocol):
    """Samples `num_rollouts` rollouts per problem, in the problems' order."""

    def __call__(
        self, problems: list[Problem], num_rollouts: int, sampling: SamplingSpec, seed: int
    ) -> list[list[Rollout]]: ...


class ScoreFn(Protocol):
    """Returns one verdict, or None, per pair, in order."""

    def __call__(self, pairs: list[tuple[Problem, Rollout]]) -> list[Verdict | None]: ...
