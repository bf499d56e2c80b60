"""Weights from the trainer to vLLM, through vLLM's weight-transfer API.

This backend carries them in Ray's object store, so it needs no NCCL and no GPU. The publisher
puts one object; every engine reads that object. On GPUs vLLM's own `nccl` backend takes its place.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
    """Where the weights are: a publication, or a folder of safetensors files."""

    # One `WeightPayload` reference, in a list so that Ray leaves it a reference.
    payload_ref: list[Any] = field(default_factory=list)
    folder: str | None = None


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
        """Read the weights and load them."""
        model: Any = self.model  # every model of vLLM's loads its own weights
        if update_info.folder is not None:
            model.load_weights(iterate_folder(Path(update_info.folder)))
            return
        payload: WeightPayload = ray.get(update_info.payload_ref[0])
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


def iterate_folder(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) of a model folder, tied tensors under every one of their names.

    For the reason that stands at `rollout.payload.pack_weights`. Raises FileNotFoundError.
    """
    from safetensors import safe_open

    names = {name: file for file in _weight_files(folder) for name in _names(file)}
    tied = _tied_names(folder)
    for file in sorted(set(names.values())):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                tensor = tensors.get_tensor(name)
                yield name, tensor
                for copy in tied.get(name, ()):
                    if copy not in names:
                        yield copy, tensor


def _weight_files(folder: Path) -> list[Path]:
    """The model's own files: a checkpoint's folder holds the optimizer's too."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return [folder / name for name in sorted(set(weight_map.values()))]
    return [folder / "model.safetensors"]


def _names(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


def _tied_names(folder: Path) -> dict[str, list[str]]:
    """{name in the file: names that are tied to it and not in the file}."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):  # no memory: only the names are wanted
        model = AutoModelForCausalLM.from_config(config)
    tied: dict[str, list[str]] = {}
    for copy, source in model.all_tied_weights_keys.items():
        tied.setdefault(source, []).append(copy)
    return tied


def register() -> None:
    """Make the backend known to vLLM in this process. Safe to call twice."""
    registry: Mapping[str, Any] = WeightTransferEngineFactory._registry
    if BACKEND not in registry:
        WeightTransferEngineFactory.register_engine(BACKEND, RayObjectStoreEngine)
