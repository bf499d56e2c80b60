"""What a publication of weights carries. No vllm here: the trainer packs, the engine unpacks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# name -> (torch dtype's name, shape, the tensor's bytes). Bytes, because numpy has no bfloat16.
WeightPayload = dict[str, tuple[str, tuple[int, ...], np.ndarray]]


def pack_weights(state: "Mapping[str, torch.Tensor]") -> WeightPayload:
    """Pack a full state dict, tied tensors under every one of their names.

    vLLM's CPU backend keeps a packed copy of the output head: left out because it is tied to the
    embeddings, that copy would stay stale and the logits would be wrong without any error.
    """
    import torch

    payload: WeightPayload = {}
    for name, tensor in state.items():
        host = tensor.detach().cpu().contiguous()
        raw = host.view(-1).view(torch.uint8).numpy().copy()
        payload[name] = (str(host.dtype).removeprefix("torch."), tuple(host.shape), raw)
    return payload
