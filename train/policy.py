"""The policy as a module: packed tokens in, log-probabilities of the loss tokens out."""

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging


class Policy(nn.Module):
    """A causal language model whose forward pass yields what the loss needs, and no more.

    The output head runs on the N loss positions alone: prompts never meet the vocabulary.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.temperature = 1.0  # of sampling; log-probabilities are taken after it

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        mask: Tensor,
        predicts: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return (log-probabilities `[N]`, entropies `[N]`, the latter without gradient).

        `input_ids`, `position_ids`, `predicts`: `[R, T]`; `mask`: `[R, 1, T, T]`; `targets`: `[N]`.
        """
        hidden = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        head = self.model.get_output_embeddings()
        assert head is not None, "a causal language model has an output head"
        logits_NV = head(hidden[predicts]).float() / self.temperature
        logprobs_NV = logits_NV.log_softmax(dim=-1)
        logprobs_N = logprobs_NV.gather(1, targets[:, None]).squeeze(1)
        with torch.no_grad():
            entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(dim=-1)
        return logprobs_N, entropy_N


def load_model(name: str, dtype: str) -> PreTrainedModel:
    """Load a causal language model from safetensors. Raises ValueError, naming the model."""
    logging.disable_progress_bar()  # the job draws its own
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=getattr(torch, dtype), use_safetensors=True, attn_implementation="sdpa"
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"model {name!r} cannot be loaded: {error}") from None
    model.config.use_cache = False
    return model
