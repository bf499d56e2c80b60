"""Candidates of a catalogue, and the hard limits that remove some before anything is measured.

A limit on something that the catalogue does not state removes the candidate too: a licence or
a latency that nobody knows was not met. Pure but for reading the file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

# Adam in float32: weights, gradients and two moments of 4 bytes each; activations are not in it.
TRAINING_BYTES_PER_PARAMETER = 16
GIB = 2**30


class Entry(BaseModel):
    """A model that could be chosen. None: not stated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    path: str = Field(min_length=1)  # a Hugging Face folder or hub name
    num_parameters: int | None = Field(default=None, ge=1)
    context_tokens: int | None = Field(default=None, ge=1)
    licence: str | None = None  # an SPDX identifier
    memory_bytes: int | None = Field(default=None, ge=1)  # to train it; None: counted
    latency_ms: float | None = Field(default=None, gt=0)  # of one generated token, as measured
    device_price_per_hour: float | None = Field(default=None, ge=0)

    def training_bytes(self) -> int | None:
        """Memory to train it: as stated, else counted from the parameters."""
        if self.memory_bytes is not None or self.num_parameters is None:
            return self.memory_bytes
        return self.num_parameters * TRAINING_BYTES_PER_PARAMETER


class Limits(BaseModel):
    """What a candidate must keep to. None: no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_parameters: int | None = Field(default=None, ge=1)
    max_memory_gib: float | None = Field(default=None, gt=0)  # of the devices that train it
    licences: tuple[str, ...] | None = None
    max_latency_ms: float | None = Field(default=None, gt=0)
    min_context_tokens: int | None = Field(default=None, ge=1)
    max_device_hours: float | None = Field(default=None, gt=0)  # of the training
    max_cost: float | None = Field(default=None, gt=0)  # of the training, in the price's currency


@dataclass(frozen=True)
class Removed:
    """A candidate that a limit removed."""

    name: str
    limit: str  # field of Limits
    reason: str  # with both numbers


class NoCandidateError(ValueError):
    """Every candidate was removed; the message says by which limit."""

    def __init__(self, removed: Sequence[Removed]) -> None:
        lines = "; ".join(f"{one.name}: {one.reason}" for one in removed)
        super().__init__(f"no model keeps to the limits: {lines or 'there is no candidate'}")
        self.removed = tuple(removed)


def read_catalogue(path: Path) -> list[Entry]:
    """Read a YAML or JSON list of entries. Raises ValueError for wrong entries or a name twice."""
    text = path.read_text(encoding="utf-8")
    loaded = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    return merge(TypeAdapter(list[Entry]).validate_python(loaded), [])


def merge(catalogue: Sequence[Entry], trained: Sequence[Entry]) -> list[Entry]:
    """The catalogue, then the models trained here. Raises ValueError for a name that is twice."""
    entries = [*catalogue, *trained]
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the catalogue names {', '.join(twice)} more than once; rename one")
    return entries


def within_limits(
    entries: Sequence[Entry], limits: Limits, device_hours: Mapping[str, float] | None = None
) -> tuple[list[Entry], list[Removed]]:
    """(candidates left, those removed). `device_hours`: of the training, by name, where known.

    Raises NoCandidateError when none is left.
    """
    left, removed = [], []
    for entry in entries:
        found = _broken(entry, limits, (device_hours or {}).get(entry.name))
        if found is None:
            left.append(entry)
        else:
            removed.append(Removed(entry.name, *found))
    if not left:
        raise NoCandidateError(removed)
    return left, removed


def _broken(entry: Entry, limits: Limits, hours: float | None) -> tuple[str, str] | None:
    """The first limit that the candidate breaks, and how."""
    allowed = limits.licences
    if allowed is not None and entry.licence not in allowed:
        held = f"is {entry.licence}" if entry.licence else "is not known"
        return "licences", f"its licence {held}, allowed are {', '.join(allowed) or 'none'}"
    stored = entry.training_bytes()
    memory_gib = None if stored is None else stored / GIB  # not rounded: it is compared
    price = entry.device_price_per_hour
    cost = None if hours is None or price is None else hours * price
    at_most = (
        ("max_parameters", "parameters", entry.num_parameters, limits.max_parameters),
        ("max_memory_gib", "GiB to train it", memory_gib, limits.max_memory_gib),
        ("max_latency_ms", "ms per token", entry.latency_ms, limits.max_latency_ms),
        ("max_device_hours", "device-hours to train it", hours, limits.max_device_hours),
        ("max_cost", "to train it", cost, limits.max_cost),
    )
    for limit, unit, value, most in at_most:
        if most is None:
            continue
        if value is None:
            return limit, f"{limit} is {most:,} and its own figure is not known"
        if value > most:
            return limit, f"{_shown(value, most)} {unit}, {limit} is {most:,}"
    least, context = limits.min_context_tokens, entry.context_tokens
    if least is not None and (context is None or context < least):
        held = f"{context:,}" if context is not None else "an unknown number of"
        return "min_context_tokens", f"{held} tokens of context, min_context_tokens is {least:,}"
    return None


def _shown(value: float, most: float) -> str:
    """A figure over its limit, in as few digits, four at least, as show that it is."""
    if isinstance(value, int):
        return f"{value:,}"
    texts = (f"{value:.{digits}g}" for digits in range(4, 17))
    return next((text for text in texts if float(text) > most), repr(value))
