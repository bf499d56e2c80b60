"""Weights from the trainer to vLLM, through vLLM's weight-transfer API.

This backend carries them in Ray's object store, so it needs no NCCL and no GPU. The publisher
puts one object; every engine reads that object. On GPUs vLLM's own `nccl` backend takes its place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
import torch
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from rollout.payload import WeightPayload

BACKEND = "ray_object_store"


@dataclass
class InitInfo(WeightTransferInitInfo):
    """Nothing to agree on: the object store needs no rendezvous."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """One `WeightPayload` reference, in a list so that Ray leaves it a reference."""

    payload_ref: list[Any] = field(default_factory=list)


class RayObjectStoreEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    """Worker side of the transfer: start -> receive -> finish, driven by vLLM's worker."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """No connection to open."""

    def start_weight_update(self) -> None:
        """Put the model back into the layout that checkpoints are loaded into."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load one payload.

        The base class synchronises an accelerator afterwards, which a machine without one lacks;
        loading from host memory is synchronous.
        """
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Read the payload from the object store and load it."""
        payload: WeightPayload = ray.get(update_info.payload_ref[0])
        model: Any = self.model  # every model of vLLM's loads its own weights
        model.load_weights(iterate_tensors(payload))

    def finish_weight_update(self) -> None:
        """Rebuild the layout that the kernels use, a packed copy of the head included."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """No connection to close."""


def iterate_tensors(payload: WeightPayload) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor). The tensors share the object store's read-only memory."""
    for name, (dtype, shape, raw) in payload.items():
        # A copy per tensor: torch cannot express read-only memory, and a layer keeps what it loads.
        flat = torch.from_numpy(np.array(raw))
        yield name, flat.view(getattr(torch, dtype)).reshape(shape)


def register() -> None:
    """Make the backend known to vLLM in this process. Safe to call twice."""
    registry: Mapping[str, Any] = WeightTransferEngineFactory._registry
    if BACKEND not in registry:
        WeightTransferEngineFactory.register_engine(BACKEND, RayObjectStoreEngine)
