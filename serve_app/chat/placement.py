"""Where a model's files are, and which engine can hold it. Reads small files; no torch, no vllm.

Two models share an engine when their fingerprints are equal: the same shapes, the same tokens, the
same end tokens and the same limits. Then only the weights differ, and those can be swapped.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rollout.engine import EngineSpec
from serve_app.chat.types import ChatModel

MAX_MODEL_LEN = 4096  # of an engine, unless a model was trained with a longer context
MAX_NUM_SEQS = 32
KV_BUDGET_BYTES = 2 * 2**30  # on a CPU; on a GPU the factor below more
GPU_KV_FACTOR = 4
MIN_KV_GIB = 0.25
PREFILL_TOKENS = 8192  # in one engine step, and at least a whole context
DTYPES = ("float32", "bfloat16")
# What saving a model again changes without changing what it computes; the end tokens are compared
# apart, since three files may name them.
_NOISE = {
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
}
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


class ModelGoneError(LookupError):
    """The model's files are not where they were."""


class ModelUnfitError(ValueError):
    """The model's files are there and cannot be served."""


@dataclass(frozen=True)
class Place:
    """A model's folder and the engine that can hold it."""

    folder: Path
    weights: str  # the folder with its age: files that are written anew are other weights
    spec: EngineSpec  # its `model` is the folder
    fingerprint: str


class Locator:
    """Finds models' files and describes their engines; remembers what it read."""

    def __init__(self, *, num_threads: int, on_gpu: bool) -> None:
        self._num_threads, self._on_gpu = num_threads, on_gpu
        self._on_hub: dict[str, Path] = {}  # the hub is asked once for each
        self._known: dict[tuple[str, int | None, str | None], Place] = {}

    def locate(self, model: ChatModel) -> Place:
        """Return the model's place; downloads a hub model that is not cached.

        Raises ModelGoneError, and ModelUnfitError with the reason.
        """
        folder = self._hub_folder(model.source) if model.on_hub else Path(model.source)
        try:
            weights = f"{folder}@{max(f.stat().st_mtime_ns for f in _weight_files(folder))}"
        except (FileNotFoundError, ValueError):
            raise ModelGoneError(f"The model {model.name!r} has no files any more") from None
        key = (weights, model.max_model_len, model.dtype)
        if key not in self._known:
            config = _read_json(folder / "config.json")
            if config is None:
                raise ModelUnfitError(f"The model {model.name!r} has no config.json")
            spec = _engine_spec(
                folder, model, config, num_threads=self._num_threads, on_gpu=self._on_gpu
            )
            self._known[key] = Place(folder, weights, spec, fingerprint(folder, spec, config))
        return self._known[key]

    def _hub_folder(self, name: str) -> Path:
        if name not in self._on_hub:
            self._on_hub[name] = _from_hub(name)
        return self._on_hub[name]


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def fingerprint(folder: Path, spec: EngineSpec, config: Mapping[str, Any]) -> str:
    """Equal for two models whose weights can be swapped in one engine."""
    tokenizer = dict(_read_json(folder / "tokenizer.json") or {})
    for key in ("padding", "truncation"):  # of a call, not of the vocabulary
        tokenizer.pop(key, None)
    settings = _read_json(folder / "tokenizer_config.json") or {}
    generation = _read_json(folder / "generation_config.json") or {}
    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    parts = {
        "config": {key: value for key, value in config.items() if key not in _NOISE},
        "tokenizer": tokenizer,
        "specials": [_text(settings.get(key)) for key in ("bos_token", "eos_token")],
        "ends": sorted(ends) if isinstance(ends, list) else [ends],
        "engine": asdict(replace(spec, model="")),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _engine_spec(
    folder: Path, model: ChatModel, config: Mapping[str, Any], *, num_threads: int, on_gpu: bool
) -> EngineSpec:
    positions = int(config.get("max_position_embeddings") or MAX_MODEL_LEN)
    # A trained model's own limit holds for each request; an engine serves its base model too.
    length = max(min(positions, MAX_MODEL_LEN), model.max_model_len or 0)
    stated = model.dtype or config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = stated if stated in DTYPES else "bfloat16"  # float16 has no place in training either
    return EngineSpec(
        model=str(folder),
        dtype=str(dtype),
        max_model_len=length,
        max_num_seqs=MAX_NUM_SEQS,
        max_num_batched_tokens=max(length, PREFILL_TOKENS),
        kv_cache_gib=_kv_cache_gib(config, length, str(dtype), on_gpu=on_gpu),
        num_threads=num_threads,
        chunked_prefill=False,
    )


def _kv_cache_gib(config: Mapping[str, Any], length: int, dtype: str, *, on_gpu: bool) -> float:
    """Room for MAX_NUM_SEQS whole contexts within the budget, and for two in any case."""
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or 1
    size = config.get("head_dim") or config.get("hidden_size", 0) // (
        config.get("num_attention_heads") or 1
    )
    layers = config.get("num_hidden_layers") or 1
    token_bytes = 2 * layers * heads * size * (4 if dtype == "float32" else 2)
    budget = KV_BUDGET_BYTES * (GPU_KV_FACTOR if on_gpu else 1)
    context_bytes = token_bytes * length
    wanted = max(min(MAX_NUM_SEQS * context_bytes, budget), 2 * context_bytes)
    return max(MIN_KV_GIB, round(wanted / 2**30, 2))


def _from_hub(name: str) -> Path:
    """The snapshot's folder, which a job has fetched: who chats makes nothing be fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=True, token=False)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise ModelGoneError(f"model {name!r} was not found on the hub: {reason}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ModelUnfitError(f"{path.name} of the model is not JSON: {error}") from None


def _text(token: Any) -> Any:
    """A special token's text, written plainly or as an object."""
    return token.get("content") if isinstance(token, dict) else token
