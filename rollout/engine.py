"""The sampler: vLLM with continuous batching, the step loop inside.

A rollout's next step is submitted the moment its previous one ends, so a short rollout never
waits for a long one. The engine knows nothing of rewards or training; the pool calls it, one
actor around each (`rollout.pool`).
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.live import (
    NO_EXTRAS,
    ContextLengthError,
    LiveRollout,
    SamplingExtras,
    Update,
)
from rollout.types import Problem, Rollout, SamplingSpec


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
    # False: a prefill that does not fit into a step waits for the next one; seeds per request stay
    # safe on CPU whatever arrives together. None: vLLM's own choice.
    chunked_prefill: bool | None = None

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


class Engine:
    """One vLLM engine in this process. Not thread-safe; one call at a time."""

    def __init__(self, spec: EngineSpec) -> None:
        os.environ.update(spec.environment())
        import torch
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        from rollout import weights
        from rollout.vector_math import use_threads

        weights.register()
        use_threads(spec.num_threads)
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
            enable_chunked_prefill=spec.chunked_prefill,
            logprobs_mode="processed_logprobs",  # after temperature: what the learner computes
            weight_transfer_config=WeightTransferConfig(backend=weights.BACKEND),
            disable_log_stats=False,  # the request counters are read by `num_requests_finished`
        )
        self._llm.init_weight_transfer_engine({"init_info": {}})
        self._tokenizer = self._llm.get_tokenizer()
        self._live: dict[str, LiveRollout] = {}  # by the id of the request under way
        self._next_request = 0

    def ready(self) -> int:
        """Return the process id; answers once the model is loaded."""
        return os.getpid()

    def load_weights(self, payload_ref: list[Any], version: int) -> float:
        """Take the published weights as `version`; return the seconds it took.

        Raises RuntimeError when the prefix cache of the old weights cannot be emptied.
        """
        return self._load({"payload_ref": payload_ref}, version)

    def load_folder(self, folder: Path, version: int) -> float:
        """Take the weights of a model folder as `version`; return the seconds it took.

        The model must have the shapes of the one that the engine was started with.
        """
        return self._load({"folder": str(folder)}, version)

    def hold_first_weights(self, version: int) -> None:
        """Call the weights that the engine was started with `version`."""
        if self.policy_version is None:
            self.policy_version = version

    def _load(self, update_info: dict[str, Any], version: int) -> float:
        started_s = time.monotonic()
        self.policy_version = None  # between versions: a failed load must not serve
        self._llm.start_weight_update()
        self._llm.update_weights({"update_info": update_info})
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
        self._check_version(policy_version)
        if self._live:
            raise RuntimeError(f"{len(self._live)} submitted rollouts run: let them end first")
        self._torch.manual_seed(seed)
        done: list[list[Rollout | None]] = [[None] * num_rollouts for _ in problems]
        try:
            for group, problem in enumerate(problems):
                for index in range(num_rollouts):
                    self._begin((group, index), problem, sampling, NO_EXTRAS)
            while self._live:
                for update in self.step():
                    if update.rollout is not None:
                        group, index = update.key
                        done[group][index] = update.rollout
        finally:
            # After an error, the next call must not meet this call's unfinished requests.
            self._abort_requests(list(self._live))
        return [[r for r in group if r is not None] for group in done]

    def submit(
        self,
        key: Any,
        problem: Problem,
        sampling: SamplingSpec,
        extras: SamplingExtras,
        policy_version: int,
        max_model_len: int | None = None,
    ) -> int:
        """Have one rollout sampled by the coming `step` calls; return its prompt's tokens.

        It joins those that run. `max_model_len` may be shorter than the engine's. Raises
        StalePolicyError, and ContextLengthError for a prompt that leaves no room.
        """
        self._check_version(policy_version)
        rollout = self._begin(key, problem, sampling, extras, max_model_len)
        return len(rollout.prompt_ids)

    def step(self) -> list[Update]:
        """One decoding step of everything that runs; what it did, by rollout."""
        updates = []
        for output in self._llm.llm_engine.step():
            rollout = self._live.get(output.request_id)
            if rollout is None:
                continue  # aborted while the step ran
            outputs: Any = output.outputs
            updates.append(self._advance(output.request_id, rollout, outputs[0], output.finished))
        return updates

    def abort(self, keys: Iterable[Any]) -> None:
        """Give up submitted rollouts; unknown keys, such as ended ones, are passed over."""
        wanted = set(keys)
        self._abort_requests([i for i, rollout in self._live.items() if rollout.key in wanted])

    @property
    def num_live(self) -> int:
        """Rollouts that `step` has work for."""
        return len(self._live)

    def num_requests_finished(self) -> int:
        """Requests finished since the engine started, by vLLM's own counters."""
        return sum(
            int(getattr(metric, "value", 0))
            for metric in self._llm.get_metrics()
            if metric.name == "vllm:request_success"
        )

    def _check_version(self, policy_version: int) -> None:
        if self.policy_version != policy_version:
            raise StalePolicyError(
                f"policy version {policy_version} was asked for, the engine holds "
                f"{self.policy_version}: publish the weights to it first"
            )

    def _begin(
        self,
        key: Any,
        problem: Problem,
        sampling: SamplingSpec,
        extras: SamplingExtras,
        max_model_len: int | None = None,
    ) -> LiveRollout:
        limit = min(max_model_len or self.spec.max_model_len, self.spec.max_model_len)
        rollout = LiveRollout(key, problem, sampling, limit, extras, problem.prompt)
        rollout.begin_turn(self._tokenizer)
        if len(rollout.prompt_ids) >= limit:
            raise ContextLengthError(len(rollout.prompt_ids), limit)
        self._request(rollout)
        return rollout

    def _request(self, rollout: LiveRollout) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling, extras = rollout.sampling, rollout.extras
        kind = RequestOutputKind.DELTA if extras.incremental else RequestOutputKind.FINAL_ONLY
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=extras.top_p,
            presence_penalty=extras.presence_penalty,
            frequency_penalty=extras.frequency_penalty,
            # Each request of a rollout draws anew: one seed would repeat the first turn's draws.
            seed=None if extras.seed is None else extras.seed + rollout.total_requests(),
            max_tokens=rollout.room(),
            stop=[sampling.step_end] if sampling.protocol == "stepwise" else None,
            logprobs=extras.top_logprobs or 0,  # 0: of the sampled token only
            output_kind=kind,
        )
        rollout.num_requests += 1
        request_id = str(self._next_request)
        self._next_request += 1
        prompt: Any = {"prompt_token_ids": rollout.prompt_ids + rollout.token_ids}
        self._llm.llm_engine.add_request(request_id, prompt, params)
        self._live[request_id] = rollout

    def _advance(
        self, request_id: str, rollout: LiveRollout, sample: Any, finished: bool
    ) -> Update:
        """Enter an output into its rollout; when its request finished, ask for what follows."""
        length = len(rollout.text)
        rollout.add(sample)
        turn, ended = None, False
        if finished:
            del self._live[request_id]
            turn = rollout.end_request(sample, self.policy_version or 0)
        text = rollout.text[length:]
        if turn is not None and rollout.goes_on(self._tokenizer):
            rollout.begin_turn(self._tokenizer)
            self._request(rollout)
        elif turn is not None:
            ended = True
        elif finished:
            self._request(rollout)
        return Update(
            key=rollout.key,
            text=text,
            num_tokens=len(sample.token_ids),
            logprobs=rollout.token_logprobs(sample),
            turn=turn,
            rollout=Rollout(rollout.problem.id, tuple(rollout.turns)) if ended else None,
        )

    def _abort_requests(self, request_ids: list[str]) -> None:
        self._llm.llm_engine.abort_request(request_ids)
        for request_id in request_ids:
            self._live.pop(request_id, None)
