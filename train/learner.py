"""The learner: a policy, its optimizer, and one verb, `step`."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from train.batch import MicroBatch, TrainSequence, attention_mask, pack
from train.loss import BatchTotals, policy_loss
from train.policy import Policy, load_model
from train.spec import LearnerSpec, StageSpec

ADAM_BETAS = (0.9, 0.999)


class Learner:
    """One worker's share of the training. With several workers, gradients are averaged by DDP."""

    def __init__(self, model: str, stage: StageSpec, spec: LearnerSpec) -> None:
        torch.set_num_threads(spec.num_threads)
        self.stage = stage
        self.spec = spec
        self.device = torch.device("cuda" if spec.gpus_per_worker else "cpu")
        self.policy = Policy(load_model(model, spec.dtype)).to(self.device)
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
        old = self._old_logprobs(batches)
        if self._sum_over_workers(float(len(sequences))) == 0:
            return {}  # no group carried a signal
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
        loaded = load_model(str(model_folder), self.spec.dtype).state_dict()
        self.policy.model.load_state_dict(loaded)
        tensors = load_file(optimizer_file)
        for name, parameter in self.policy.model.named_parameters():
            self.optimizer.state[parameter] = {
                slot: tensors[f"{name}/{slot}"].to("cpu" if slot == "step" else self.device)
                for slot in ("step", "exp_avg", "exp_avg_sq")
            }

    def _update(
        self, batches: Sequence[MicroBatch], old: Sequence[Tensor | None]
    ) -> dict[str, float]:
        """One optimizer step: forward, loss, backward, clip, step."""
        stage = self.stage
        num_tokens = self._sum_over_workers(float(sum(len(b.targets) for b in batches)))
        num_sequences = self._sum_over_workers(float(sum(b.num_sequences for b in batches)))
        totals = BatchTotals(num_tokens, num_sequences)
        sums: dict[str, float] = dict.fromkeys(("loss", "entropy", "clip", "kl", "diff"), 0.0)
        max_diff = 0.0
        for batch, old_N in zip(batches, old, strict=True):
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
                sums["diff"] += diff_N.abs().sum().item()
                sums["kl"] += (diff_N.neg().exp() - 1 + diff_N).sum().item()
                sums["clip"] += clipped_N.sum().item()
                max_diff = max(max_diff, diff_N.abs().max().item())
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), stage.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        means = {name: self._sum_over_workers(value) / num_tokens for name, value in sums.items()}
        return {
            "loss": means["loss"],
            "entropy": means["entropy"],
            "clip_ratio": means["clip"],
            "sampler_learner_kl": means["kl"],  # k3 estimate of KL(sampler || learner)
            "sampler_learner_logprob_diff": means["diff"],
            "sampler_learner_logprob_diff_max": max_diff,
            "grad_norm": float(grad_norm),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def _forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
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

    def _sum_over_workers(self, value: float) -> float:
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        result = total.item()
        if not math.isfinite(result):
            raise FloatingPointError(f"a worker's sum is {result}; lower the learning rate")
        return result
