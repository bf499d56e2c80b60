"""How a job divides a cluster: learner workers, engines, verifiers, threads, micro-batches."""

import math
from collections.abc import Mapping
from typing import Any

from train.auto.facts import ModelFacts

GIB = 2**30
TRAINED_BYTES = 16  # per parameter: float32 weights, gradients and Adam's two moments
ACTIVATION_BYTES = 64  # per token, layer and hidden unit, in a forward and backward pass
LOGIT_BYTES = 12  # per token and vocabulary entry
MICRO_BATCH = (512, 16384)  # fewest and most tokens
ACTIVATION_SHARE = 0.25  # of a worker's memory
MAX_THREADS = 8
MAX_CPU_KV_GIB, LEAST_KV_GIB = 4.0, 0.25
DEFAULT_SEQS = 256
# Sequences that a CPU decodes at once, by the largest model they suit.
CPU_SEQS = ((10e6, 256), (100e6, 128), (1e9, 64), (math.inf, 16))
# Memory of accelerators by the name that Ray gives them.
GPU_GIB = {
    "H200": 141,
    "B200": 180,
    "H100": 80,
    "A100-80G": 80,
    "A100": 40,
    "L40S": 48,
    "A10G": 24,
    "L4": 24,
    "V100": 16,
    "T4": 16,
}
ASSUMED_GPU_GIB = 24


class ResourceError(ValueError):
    """The cluster cannot hold the job, whatever the division."""


def device_of(cluster: Mapping[str, float], said: Mapping[str, Any]) -> str:
    """ "gpu" where the cluster has one and the client did not decline, else "cpu"."""
    declined = said.get("gpus_per_worker") == 0 and said.get("gpus_per_engine") == 0
    asked = said.get("gpus_per_worker") or said.get("gpus_per_engine")
    return "gpu" if (cluster.get("GPU", 0) > 0 or asked) and not declined else "cpu"


def choose_resources(
    said: Mapping[str, Any],
    cluster: Mapping[str, float],
    model: ModelFacts,
    max_model_len: int,
    num_sequences: int,
    cores: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Choose every field of learner and rollout; `said` overrides.

    `num_sequences` is the most that a step samples at once. `cores` are those that this machine
    really has: Ray's CPUs are what somebody said, and more threads than cores are very slow.
    Raises ResourceError.
    """
    device = device_of(cluster, said)
    if cores is not None and _num_nodes(cluster) <= 1:
        cluster = {**cluster, "CPU": min(cluster.get("CPU", 0), cores)}
    chosen, note = (_on_gpus if device == "gpu" else _on_cpus)(cluster, model)
    fields = chosen | dict(said)
    fields["max_model_len"] = max_model_len
    memory_bytes = _worker_bytes(cluster, fields, device)
    _check_memory(model, memory_bytes, fields, device)
    if "micro_batch_tokens" not in said:
        per_token = model.num_layers * model.hidden_size * ACTIVATION_BYTES
        per_token += model.vocab_size * LOGIT_BYTES
        tokens = int(ACTIVATION_SHARE * memory_bytes / per_token)
        fewest, most = MICRO_BATCH
        fields["micro_batch_tokens"] = min(max(1 << (tokens.bit_length() - 1), fewest), most)
    if "max_num_seqs" not in said:
        cap = next(s for size, s in CPU_SEQS if model.num_parameters <= size)
        cap = DEFAULT_SEQS if device == "gpu" else cap
        fields["max_num_seqs"] = max(1, min(cap, num_sequences))
    if "kv_cache_gib" not in said:
        fields["kv_cache_gib"] = _kv_gib(model, fields, memory_bytes, device)
    note += (
        f"; micro-batches of {fields['micro_batch_tokens']} tokens, {fields['max_num_seqs']} "
        f"sequences at once, {fields['kv_cache_gib']:g} GiB of key-value cache"
    )
    if said:
        note += f"; set by you: {', '.join(sorted(said))}"
    return fields, [f"resources: {note}"]


def _on_cpus(cluster: Mapping[str, float], model: ModelFacts) -> tuple[dict[str, Any], str]:
    cpus = int(cluster.get("CPU", 0))
    nodes = max(1, _num_nodes(cluster))
    threads = max(1, min(MAX_THREADS, cpus // nodes))
    verifiers = max(1, min(4, cpus // 2 or 1))
    per_actor = round(max(0.1, min(0.5, (cpus - 0.1 * verifiers) / 2)), 2)
    note = (
        f"no GPU: 1 learner worker and 1 engine in float32, {threads} threads each, and "
        f"{verifiers} verifier{'s' if verifiers > 1 else ''} on {cpus} CPUs"
    )
    fields = {
        "num_workers": 1,
        "num_engines": 1,
        "num_verifiers": verifiers,
        "cpus_per_worker": per_actor,  # logical: several jobs share a small machine
        "cpus_per_engine": per_actor,
        "cpus_per_verifier": 0.1,
        "gpus_per_worker": 0,
        "gpus_per_engine": 0,
        "num_threads": threads,
        "dtype": "float32",
    }
    return fields, note


def _on_gpus(cluster: Mapping[str, float], model: ModelFacts) -> tuple[dict[str, Any], str]:
    gpus = max(1, int(cluster.get("GPU", 0)))
    cpus = int(cluster.get("CPU", 0))
    workers = max(1, gpus // 2)
    engines = max(1, gpus - workers)
    share = 1.0 if gpus > 1 else 0.5
    verifiers = max(1, min(8, cpus // 4 or 1))
    per_actor = min(1.0, max(0.1, (cpus - 0.1 * verifiers) / (workers + engines)))
    note = (
        f"{gpus} GPU{'s' if gpus > 1 else ''}: {workers} learner worker{'s' if workers > 1 else ''}"
        f" and {engines} engine{'s' if engines > 1 else ''} in bfloat16 with {share:g} GPU each"
    )
    fields = {
        "num_workers": workers,
        "num_engines": engines,
        "num_verifiers": verifiers,
        "cpus_per_worker": round(per_actor, 2),
        "cpus_per_engine": round(per_actor, 2),
        "cpus_per_verifier": 0.1,
        "gpus_per_worker": share,
        "gpus_per_engine": share,
        "num_threads": max(1, min(MAX_THREADS, cpus // (workers + engines))),
        "dtype": "bfloat16",
    }
    return fields, note


def _num_nodes(cluster: Mapping[str, float]) -> int:
    return sum(k.startswith("node:") and k != "node:__internal_head__" for k in cluster)


def _gpu_gib(cluster: Mapping[str, float]) -> float:
    """Memory of the smallest accelerator that the cluster names."""
    named = [k.partition(":")[2] for k in cluster if k.startswith("accelerator_type:")]
    known = [GPU_GIB[name] for name in named if name in GPU_GIB]
    return min(known) if known else ASSUMED_GPU_GIB


def _worker_bytes(cluster: Mapping[str, float], fields: Mapping[str, Any], device: str) -> float:
    """Memory that one learner worker has for itself."""
    if device == "gpu":
        return _gpu_gib(cluster) * GIB * min(1.0, fields["gpus_per_worker"] or 1.0)
    total = cluster.get("memory", 4 * GIB)  # Ray's own figure, in bytes
    return total / max(1, fields["num_workers"]) / 2  # the other half is the engines'


def _check_memory(
    model: ModelFacts, memory_bytes: float, fields: Mapping[str, Any], device: str
) -> None:
    """Raise ResourceError when a worker cannot hold the model, its gradients and its moments."""
    needed = model.num_parameters * TRAINED_BYTES
    if needed > memory_bytes:
        most = memory_bytes / TRAINED_BYTES / 1e9
        where = "GPU memory" if device == "gpu" else "memory"
        raise ResourceError(
            f"training a model of {model.num_parameters / 1e9:.2f}B parameters takes "
            f"{needed / GIB:.1f} GiB in every learner worker, but one has about "
            f"{memory_bytes / GIB:.1f} GiB of {where} ({fields['num_workers']} workers); choose a "
            f"model of at most {most:.2f}B parameters, or add larger machines"
        )


def _kv_gib(
    model: ModelFacts, fields: Mapping[str, Any], memory_bytes: float, device: str
) -> float:
    """Key-value cache that holds every sequence at full length, within the memory there is."""
    size = 4 if fields["dtype"] == "float32" else 2
    needed = fields["max_num_seqs"] * fields["max_model_len"] * model.kv_bytes_per_token(size) / GIB
    if device == "gpu":
        share = memory_bytes / GIB * (fields["gpus_per_engine"] or 1.0)
        share /= fields["gpus_per_worker"] or 1.0
        room = 0.8 * share - model.num_parameters * size / GIB
    else:
        room = min(MAX_CPU_KV_GIB, memory_bytes / GIB / 4)
    quarter = LEAST_KV_GIB
    return max(quarter, math.ceil(min(needed * 1.1, room) / quarter) * quarter)
