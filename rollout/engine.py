"""The sampler: vLLM with continuous batching, the step loop inside.

A rollout's next step is submitted the moment its previous one ends, so a short rollout never
waits for a long one. The engine knows nothing of rewards or training; the pool calls it, one
actor around each (`rollout.pool`).
"""

import os
import time
from dataclasses import dataclass, field
from typing import Any

from rollout.steps import THINK_CLOSE, THINK_OPEN, parse_step
from rollout.types import FinishReason, Problem, Rollout, SamplingSpec, Turn


@dataclass(frozen=True)
class EngineSpec:
    """How to start one engine."""

    model: str  # folder or hub name
    dtype: str = "float32"
    seed: int = 0
    max_model_len: int = 1024  # tokens of prompt and sample together
    max_num_seqs: int = 256  # sequences decoded at once
    # Above any step's prefill. On CPU a chunked prefill with seeds per request crashes vLLM, and
    # whole prefills keep runs repeatable.
    max_num_batched_tokens: int = 32768
    kv_cache_gib: float = 1.0
    num_threads: int = 2  # CPU only
    enforce_eager: bool = True
    prefix_caching: bool = False

    def environment(self) -> dict[str, str]:
        """Environment variables that must stand before vllm is imported."""
        return {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # weights are handed over inside the process
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # actors share cores; the scheduler places them
            "VLLM_LOGGING_LEVEL": "WARNING",
            "OMP_NUM_THREADS": str(self.num_threads),
            # Unseeded sampling is compiled by default, which needs a C++ compiler at run time.
            "TORCHDYNAMO_DISABLE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }


class StalePolicyError(RuntimeError):
    """The engine does not hold the policy version that the caller asked for."""


@dataclass
class _Live:
    """A rollout in the making."""

    problem: Problem
    group: int
    index: int
    context: str  # prompt of the current turn, thinks of earlier turns left out
    turns: list[Turn] = field(default_factory=list)
    # The current turn so far: more than one piece when `step_end` occurs inside a think block.
    prompt_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    num_requests: int = 0


class Engine:
    """One vLLM engine in this process. Not thread-safe; one call at a time."""

    def __init__(self, spec: EngineSpec) -> None:
        os.environ.update(spec.environment())
        import torch
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        from rollout import weights

        weights.register()
        torch.set_num_threads(spec.num_threads)
        self.spec = spec
        self.policy_version: int | None = None  # None until the first publication
        self._torch = torch
        self._llm = LLM(
            model=spec.model,
            dtype=spec.dtype,  # pyright: ignore[reportArgumentType]
            seed=spec.seed,
            max_model_len=spec.max_model_len,
            max_num_seqs=spec.max_num_seqs,
            max_num_batched_tokens=max(spec.max_num_batched_tokens, spec.max_model_len),
            kv_cache_memory_bytes=int(spec.kv_cache_gib * 2**30),
            enforce_eager=spec.enforce_eager,
            enable_prefix_caching=spec.prefix_caching,
            logprobs_mode="processed_logprobs",  # after temperature: what the learner computes
            weight_transfer_config=WeightTransferConfig(backend=weights.BACKEND),
            disable_log_stats=False,  # the request counters are read by `num_requests_finished`
        )
        self._llm.init_weight_transfer_engine({"init_info": {}})
        self._tokenizer = self._llm.get_tokenizer()
        self._next_request = 0

    def ready(self) -> int:
        """Return the process id; answers once the model is loaded."""
        return os.getpid()

    def load_weights(self, payload_ref: list[Any], version: int) -> float:
        """Take the published weights as `version`; return the seconds it took.

        Raises RuntimeError when the prefix cache of the old weights cannot be emptied.
        """
        started_s = time.monotonic()
        self.policy_version = None  # between versions: a failed load must not serve
        self._llm.start_weight_update()
        self._llm.update_weights({"update_info": {"payload_ref": payload_ref}})
        self._llm.finish_weight_update()
        # vLLM only warns when it cannot, and then old keys would answer for new weights.
        if not self._llm.reset_prefix_cache(reset_running_requests=True):
            raise RuntimeError(f"prefix cache not emptied after loading policy version {version}")
        self.policy_version = version
        return time.monotonic() - started_s

    def generate(
        self,
        problems: list[Problem],
        num_rollouts: int,
        sampling: SamplingSpec,
        seed: int,
        policy_version: int,
    ) -> list[list[Rollout]]:
        """Sample `num_rollouts` rollouts of each problem, `[P][G]`.

        The same arguments and weights give the same rollouts in float32 on CPU: the engine is
        reseeded once per call. Raises StalePolicyError when the engine holds another version.
        """
        if self.policy_version != policy_version:
            raise StalePolicyError(
                f"policy version {policy_version} was asked for, the engine holds "
                f"{self.policy_version}: publish the weights to it first"
            )
        self._torch.manual_seed(seed)
        live: dict[str, _Live] = {}
        try:
            return self._generate(problems, num_rollouts, sampling, live)
        finally:
            # After an error, the next call must not meet this call's unfinished requests.
            self._llm.llm_engine.abort_request(list(live))

    def _generate(
        self,
        problems: list[Problem],
        num_rollouts: int,
        sampling: SamplingSpec,
        live: dict[str, _Live],
    ) -> list[list[Rollout]]:
        """Run the step loop until no rollout is left in `live`."""
        for group, problem in enumerate(problems):
            for index in range(num_rollouts):
                rollout = _Live(problem, group, index, problem.prompt)
                self._submit_turn(rollout, sampling, live)
        done: list[list[Rollout | None]] = [[None] * num_rollouts for _ in problems]
        while live:
            for output in self._llm.llm_engine.step():
                if not output.finished:
                    continue
                rollout = live.pop(output.request_id)
                sample: Any = output.outputs
                if self._absorb(rollout, sample[0], sampling):
                    self._submit_turn(rollout, sampling, live)
                elif rollout.token_ids:  # the think block is still open: go on with this turn
                    self._submit(rollout, sampling, live)
                else:
                    finished = Rollout(rollout.problem.id, tuple(rollout.turns))
                    done[rollout.group][rollout.index] = finished
        return [[r for r in group if r is not None] for group in done]

    def num_requests_finished(self) -> int:
        """Requests finished since the engine started, by vLLM's own counters."""
        return sum(
            int(getattr(metric, "value", 0))
            for metric in self._llm.get_metrics()
            if metric.name == "vllm:request_success"
        )

    def _submit_turn(self, rollout: _Live, sampling: SamplingSpec, live: dict[str, _Live]) -> None:
        ids = self._tokenizer.encode(rollout.context, add_special_tokens=False)
        rollout.prompt_ids, rollout.token_ids, rollout.logprobs = ids, [], []
        rollout.text, rollout.num_requests = "", 0
        self._submit(rollout, sampling, live)

    def _submit(self, rollout: _Live, sampling: SamplingSpec, live: dict[str, _Live]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        ids = rollout.prompt_ids + rollout.token_ids
        room = self.spec.max_model_len - len(ids)
        params = SamplingParams(
            temperature=sampling.temperature,
            max_tokens=min(sampling.max_tokens - len(rollout.token_ids), room),
            stop=[sampling.step_end] if sampling.protocol == "stepwise" else None,
            logprobs=0,  # of the sampled token only
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        rollout.num_requests += 1
        request_id = str(self._next_request)
        self._next_request += 1
        self._llm.llm_engine.add_request(request_id, {"prompt_token_ids": ids}, params)
        live[request_id] = rollout

    def _absorb(self, rollout: _Live, sample: Any, sampling: SamplingSpec) -> bool:
        """Add a finished request to its rollout. True: a next turn follows.

        Leaves `rollout.token_ids` filled when the current turn must go on, empty when it ended.
        """
        rollout.token_ids += sample.token_ids
        rollout.logprobs += [
            step[token].logprob
            for step, token in zip(sample.logprobs, sample.token_ids, strict=True)
        ]
        rollout.text += sample.text
        finish: FinishReason = "length"
        if sample.finish_reason == "stop":
            # A model may have several end tokens; for all but the first vLLM names the token.
            finish = "step_end" if sample.stop_reason == sampling.step_end else "end"
        elif sample.finish_reason != "length":
            raise RuntimeError(
                f"vLLM finished a request of {rollout.problem.id} with {sample.finish_reason!r}"
            )
        thinking = rollout.text.count(THINK_OPEN) > rollout.text.count(THINK_CLOSE)
        room = self.spec.max_model_len - len(rollout.prompt_ids) - len(rollout.token_ids)
        if finish == "step_end" and thinking:
            if len(rollout.token_ids) < sampling.max_tokens and room > 0:
                rollout.text += sampling.step_end
                return False
            finish = "length"
        turn = Turn(
            prompt_ids=tuple(rollout.prompt_ids),
            token_ids=tuple(rollout.token_ids),
            logprobs=tuple(rollout.logprobs),
            text=rollout.text,
            finish=finish,
            policy_versions=((self.policy_version or 0, len(rollout.token_ids)),),
            num_requests=rollout.num_requests,
        )
        rollout.turns.append(turn)
        rollout.token_ids = []
        step = parse_step(turn.text)
        if finish != "step_end" or step is None or len(rollout.turns) >= sampling.max_turns:
            return False
        rollout.context += step + sampling.step_end
        # The next turn needs room for at least one token; a context that is full is cut off here.
        num_ids = len(self._tokenizer.encode(rollout.context, add_special_tokens=False))
        return num_ids < self.spec.max_model_len
