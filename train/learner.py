"""The learner: a policy, its optimizer, and one verb, `step`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed import ReduceOp
from torch.nn.parallel import DistributedDataParallel

from rollout.vector_math import use_threads
from train.batch import MicroBatch, TrainSequence, attention_mask, empty_batch, pack
from train.loss import BatchTotals, kl_k3, policy_loss
from train.policy import Policy, load_model
from train.spec import LearnerSpec, StageSpec

ADAM_BETAS = (0.9, 0.999)
# How far the learner is from the sampler; both are means over the batch's tokens.
SAMPLER_METRICS = ("sampler_learner_kl", "sampler_learner_logprob_diff")


class Learner:
    """One worker's share of the training. With several workers, gradients are averaged by DDP."""

    def __init__(self, model: str, stage: StageSpec, spec: LearnerSpec) -> None:
        use_threads(spec.num_threads)
        self.stage = stage
        self.spec = spec
        self.device = torch.device("cuda" if spec.gpus_per_worker else "cpu")
        # Weights are float32 whatever the compute dtype: bfloat16 rounds a step of 1e-6 away.
        self.policy = Policy(load_model(model, "float32")).to(self.device)
        self.policy.temperature = stage.temperature
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.world_size = torch.distributed.get_world_size() if distributed else 1
        self.module = DistributedDataParallel(self.policy) if self.world_size > 1 else self.policy
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(),
            lr=stage.learning_rate,
            betas=ADAM_BETAS,
            weight_decay=stage.weight_decay,
        )

    def step(self, sequences: Sequence[TrainSequence], step: int) -> dict[str, float]:
        """Make `updates_per_batch` optimizer steps over this worker's sequences.

        `step` counts from 0 and sets the learning rate. Returns metrics in TRL's names.
        """
        self._set_learning_rate(step)
        batches = pack(sequences, self.spec.micro_batch_tokens)
        num_batches = int(self._over_workers(float(len(batches)), "max"))
        if num_batches == 0:
            return {}  # no group carried a signal
        # Every worker runs as many forward passes as the busiest one: each pass may communicate.
        batches += [empty_batch()] * (num_batches - len(batches))
        old = self._old_logprobs(batches)
        metrics: dict[str, float] = {}
        for update in range(self.stage.updates_per_batch):
            update_metrics = self._update(batches, old)
            metrics = metrics if update else update_metrics  # the first update is the on-policy one
        return metrics

    def state(self) -> dict[str, Tensor]:
        """The full state dict on this device; tied tensors under each of their names."""
        return dict(self.policy.model.state_dict())

    def save_optimizer(self, path: Path) -> None:
        """Write the optimizer's state as safetensors, keyed "parameter/slot"."""
        tensors = {}
        for name, parameter in self.policy.model.named_parameters():
            for slot, value in self.optimizer.state[parameter].items():
                tensors[f"{name}/{slot}"] = value.detach().cpu().contiguous()
        save_file(tensors, path)

    def load(self, model_folder: Path, optimizer_file: Path) -> None:
        """Restore model and optimizer; the next step equals the one that was not taken."""
        loaded = load_model(str(model_folder), "float32").state_dict()
        self.policy.model.load_state_dict(loaded)
        tensors = load_file(optimizer_file)
        for name, parameter in self.policy.model.named_parameters():
            self.optimizer.state[parameter] = {
                slot: tensors[key].to("cpu" if slot == "step" else self.device)
                for slot in ("step", "exp_avg", "exp_avg_sq")
                # Before the first optimizer step there is no state to load.
                if (key := f"{name}/{slot}") in tensors
            }

    def _update(
        self, batches: Sequence[MicroBatch], old: Sequence[Tensor | None]
    ) -> dict[str, float]:
        """One optimizer step: forward, loss, backward, clip, step.

        Raises FloatingPointError, and leaves the policy as it was, when the gradient is not finite.
        """
        stage = self.stage
        num_tokens = self._over_workers(float(sum(len(b.targets) for b in batches)), "sum")
        num_sequences = self._over_workers(float(sum(b.num_sequences for b in batches)), "sum")
        totals = BatchTotals(num_tokens, num_sequences)
        sums = dict.fromkeys(("loss", "entropy", "clip_ratio", *SAMPLER_METRICS), 0.0)
        max_diff = 0.0
        for number, (batch, old_N) in enumerate(zip(batches, old, strict=True)):
            # Gradients travel once, with the last micro-batch.
            with self._without_sync() if number < len(batches) - 1 else nullcontext():
                logprobs_N, entropy_N = self._forward(batch)
                old_N = logprobs_N.detach() if old_N is None else old_N
                sampler_N = batch.sampler_logprobs.to(self.device)
                advantages_N = batch.advantages.to(self.device)
                ids_N = batch.sequence_ids.to(self.device)
                loss_N, clipped_N = policy_loss(
                    stage, totals, logprobs_N, old_N, sampler_N, advantages_N, ids_N
                )
                # DDP averages over workers, the loss is a sum over every worker's tokens.
                (loss_N.sum() * self.world_size).backward()
            with torch.no_grad():
                diff_N = old_N - sampler_N
                sums["loss"] += loss_N.sum().item() * num_tokens
                sums["entropy"] += entropy_N.sum().item()
                sums["sampler_learner_logprob_diff"] += diff_N.abs().sum().item()
                sums["sampler_learner_kl"] += kl_k3(diff_N).sum().item()
                sums["clip_ratio"] += clipped_N.sum().item()
                if len(diff_N):
                    max_diff = max(max_diff, diff_N.abs().max().item())
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), stage.max_grad_norm)
        if not grad_norm.isfinite():
            self.optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError(
                f"the gradient's norm is {grad_norm.item()}; the policy was left as it was. Lower "
                f"learning_rate (now {self.optimizer.param_groups[0]['lr']:g}), or train in "
                "learner.dtype float32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            **{name: self._over_workers(v, "sum") / num_tokens for name, v in sums.items()},
            "sampler_learner_logprob_diff_max": self._over_workers(max_diff, "max"),
            "grad_norm": grad_norm.item(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def _without_sync(self) -> AbstractContextManager[None]:
        """Keep gradients on this worker for now."""
        if isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync()
        return nullcontext()

    def _forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        compute = getattr(torch, self.spec.dtype)
        with torch.autocast(self.device.type, compute, enabled=compute != torch.float32):
            return self.module(
                batch.input_ids.to(self.device),
                batch.position_ids.to(self.device),
                attention_mask(batch.segments.to(self.device)),
                batch.predicts.to(self.device),
                batch.targets.to(self.device),
            )

    def _old_logprobs(self, batches: Sequence[MicroBatch]) -> list[Tensor | None]:
        """log pi_old per micro-batch; None where the only update's own forward pass gives it."""
        if self.stage.updates_per_batch == 1:
            return [None] * len(batches)
        with torch.no_grad():
            return [self._forward(batch)[0] for batch in batches]

    def _set_learning_rate(self, step: int) -> None:
        stage = self.stage
        factor = min(1.0, (step + 1) / (stage.warmup_steps + 1))
        if stage.lr_schedule == "linear":
            factor *= 1 - 0.9 * min(1.0, step / max(1, stage.max_steps - 1))
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate * factor

    def _over_workers(self, value: float, how: Literal["sum", "max"]) -> float:
        """Reduce a number over all workers; every worker gets the result."""
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        operation = ReduceOp.SUM if how == "sum" else ReduceOp.MAX
        torch.distributed.all_reduce(total, operation)
        return total.item()
