"""Warm start: supervised fine-tuning on expert steps, by TRL's SFTTrainer inside Ray Train.

One example is one step: the SRL prompt, and the expert's step as the completion. With
`with_thoughts` the think block holds `expert_thoughts`; otherwise it is empty. Only the
completion is learnt from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

from rollout.steps import THINK_CLOSE, THINK_OPEN
from train import checkpoint
from train.data import Row
from train.prompts import PromptRenderer
from train.spec import JobSpec, SFTSpec
from train.stage import run_config, scaling


@dataclass(frozen=True)
class SFTConfigBundle:
    """What the workers of the stage need."""

    job: JobSpec
    sft: SFTSpec
    examples: list[dict[str, list[int]]]  # "input_ids" and "completion_mask"
    folder: Path


def sft_examples(
    rows: Sequence[Row], renderer: PromptRenderer, spec: SFTSpec
) -> list[dict[str, list[int]]]:
    """Return one tokenised example per expert step; preflight has checked the thoughts.

    Tokenised here, because TRL would close every completion with the end token, and a step that
    is not the last must close with `step_end`.
    """
    end = renderer.tokenizer.eos_token
    examples = []
    for row in rows:
        thoughts = row.expert_thoughts if spec.with_thoughts else ("",) * len(row.expert_steps)
        for k, (step, thought) in enumerate(zip(row.expert_steps, thoughts, strict=True)):
            close = end if k == len(row.expert_steps) - 1 else renderer.spec.step_end
            prompt = renderer.encode(renderer.render(row, row.expert_steps[:k]))
            text = f"{THINK_OPEN}{thought}{THINK_CLOSE}{step.strip()}{close}"
            completion = renderer.encode(text)
            examples.append(
                {
                    "input_ids": prompt + completion,
                    "completion_mask": [0] * len(prompt) + [1] * len(completion),
                }
            )
    return examples


def run_sft(bundle: SFTConfigBundle, storage: Path) -> Path:
    """Train and return the committed model's folder."""
    trainer = TorchTrainer(
        _sft_loop,
        train_loop_config={"bundle": bundle},
        scaling_config=scaling(bundle.job.learner),
        run_config=run_config("sft", storage, bundle.job.learner),
    )
    trainer.fit()
    found = checkpoint.latest(bundle.folder)
    if found is None:
        raise RuntimeError("stage sft ended without a checkpoint")
    return found.path


def _sft_loop(train_loop_config: dict[str, Any]) -> None:
    import torch
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from train.policy import load_model
    from train.prompts import load_tokenizer

    bundle: SFTConfigBundle = train_loop_config["bundle"]
    torch.set_num_threads(bundle.job.learner.num_threads)
    tokenizer = load_tokenizer(bundle.job)
    model = load_model(bundle.job.model, "float32")  # bf16 below is autocast
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(bundle.folder / ".trl"),
            num_train_epochs=bundle.sft.num_epochs,
            per_device_train_batch_size=max(
                1, bundle.sft.batch_size // bundle.job.learner.num_workers
            ),
            learning_rate=bundle.sft.learning_rate,
            max_length=bundle.job.rollout.max_model_len,
            completion_only_loss=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=bundle.job.seed,
            use_cpu=bundle.job.learner.gpus_per_worker == 0,
            bf16=bundle.job.learner.dtype == "bfloat16",
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(bundle.examples),
        processing_class=tokenizer,
    )
    trainer.train()
    if ray.train.get_context().get_world_rank() == 0:

        def write(folder: Path) -> None:
            model.save_pretrained(folder, safe_serialization=True)
            tokenizer.save_pretrained(folder)

        checkpoint.commit(bundle.folder, trainer.state.global_step, {}, write)
    ray.train.report({"step": trainer.state.global_step})
