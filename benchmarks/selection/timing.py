"""How far the cost model is off: phases timed on some sizes and lengths, predicted on others.

Seconds are the process's own CPU time with one thread, so that whatever else runs on the machine
hardly counts. Every length is timed REPEATS times in each of ROUNDS rounds through all lengths, so
that a slow spell does not hit all times of one cell; the least counts, all are kept in the cell.
Weights are random: speed does not depend on them.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.cells import provenance, write_cell
from rollout.vector_math import use_threads
from train.selection.cost import Work, turn_work
from train.selection.prediction import Run, TimeModel, fit

ROUNDS, REPEATS = 3, 3
NUM_SEQUENCES = 64
PHASES = ("training", "sampling")


@dataclass(frozen=True)
class Size:
    """A model's shape."""

    layers: int
    width: int

    def __str__(self) -> str:
        return f"{self.layers}x{self.width}"


CALIBRATION_SIZES, CALIBRATION_LENGTHS = (Size(2, 64), Size(3, 96), Size(6, 192)), (48, 96, 240)
UNSEEN_SIZES, UNSEEN_LENGTHS = (Size(4, 128),), (144, 192)


def time_size(size: Size, folder: Path, results: Path, threads: int) -> None:
    """Time both phases of one size at every length, unless they stand; one engine."""
    path = results / "timing" / f"{size}.json"
    if path.exists():
        return
    import torch
    from transformers import AutoConfig

    from models import recipe
    from train.auto.facts import read_model_facts

    use_threads(threads)
    tokenizer = recipe.build_tokenizer()
    torch.manual_seed(0)
    model = recipe.build_model(argparse.Namespace(**asdict(size)), tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = read_model_facts(str(folder), AutoConfig.from_pretrained(folder))
    lengths = sorted((*CALIBRATION_LENGTHS, *UNSEEN_LENGTHS))
    runs = _train(folder, facts, lengths, threads)
    from benchmarks.learning.fleet import LocalFleet

    fleet = LocalFleet(str(folder), threads)
    fleet.publish(dict(model.state_dict()))
    runs += _sample(fleet, facts, lengths)
    record = asdict(size) | {"num_parameters": facts.num_parameters, "runs": runs}
    write_cell(path, record | provenance())
    print(
        f"{size}: {[(r['phase'], r['length'], round(r['seconds'], 3)) for r in runs]}", flush=True
    )


def _train(folder: Path, facts: Any, lengths: list[int], threads: int) -> list[dict[str, Any]]:
    """A learner's step over sequences of each length in tokens, half of them sampled."""
    from train.learner import Learner
    from train.spec import LearnerSpec, RLVRSpec

    num_steps = ROUNDS * len(lengths) * (REPEATS + 1)
    stage = RLVRSpec(max_steps=num_steps)
    learner = Learner(str(folder), stage, LearnerSpec(num_threads=threads, micro_batch_tokens=4096))
    numbers = iter(range(num_steps))
    found: dict[int, list[tuple[float, Work, int]]] = {length: [] for length in lengths}
    for _ in range(ROUNDS):
        for length in lengths:
            sequences, work = _sequences(facts, length)
            learner.step(sequences, next(numbers))  # the first step at a length allocates
            for _ in range(REPEATS):
                seconds = _cpu_seconds(lambda rows=sequences: learner.step(rows, next(numbers)))
                found[length].append((seconds, work, 1))
    return [
        _cell("training", length, times, lambda work: (work.training_flops, work.trained_tokens))
        for length, times in found.items()
    ]


def _sequences(facts: Any, length: int) -> tuple[list[Any], Work]:
    """A batch to learn from, and its work."""
    from train.batch import TrainSequence

    rng, half = random.Random(length), length // 2
    sequences = []
    for _ in range(NUM_SEQUENCES):
        ids = tuple(rng.randrange(8, facts.vocab_size) for _ in range(length))
        logprobs = (-4.0,) * (length - half)
        sequences.append(TrainSequence(ids[:half], ids[half:], logprobs, rng.choice((-1.0, 1.0))))
    one = turn_work(facts, half, length - half, trained=True)
    return sequences, sum((one for _ in sequences), Work())


def _sample(fleet: Any, facts: Any, lengths: list[int]) -> list[dict[str, Any]]:
    """Batches of rollouts, half of a length read and up to half sampled; a step is a decoding."""
    from rollout.types import Problem, SamplingSpec

    found: dict[int, list[tuple[float, Work, int]]] = {length: [] for length in lengths}
    for part in range(ROUNDS):
        for length in lengths:
            rng, half = random.Random(length), length // 2
            text = "".join(rng.choice("0123456789irlec") for _ in range(half))
            asked = [Problem(f"{i}", text) for i in range(NUM_SEQUENCES)]
            spec = SamplingSpec("single", length - half, 1, 1.0)
            seeds = range(part * (REPEATS + 1), (part + 1) * (REPEATS + 1))
            times = [_timed_sample(fleet, facts, asked, spec, seed) for seed in seeds]
            found[length] += times[1:]  # the first one allocates
    return [
        _cell(
            "sampling",
            length,
            times,
            lambda work: (work.sampling_flops, work.prompt_tokens + work.sampled_tokens),
        )
        for length, times in found.items()
    ]


def _cell(
    phase: str,
    length: int,
    times: list[tuple[float, Work, int]],
    amounts: Callable[[Work], tuple[float, float]],
) -> dict[str, Any]:
    """The quickest of a cell's times with the work that it did, and every time in order."""
    seconds, work, steps = min(times, key=lambda one: one[0])
    flops, tokens = amounts(work)
    return {
        "phase": phase,
        "length": length,
        "flops": flops,
        "tokens": tokens,
        "steps": steps,
        "seconds": seconds,
        "all_seconds": [round(one[0], 4) for one in times],
    }


def _timed_sample(
    fleet: Any, facts: Any, asked: list[Any], spec: Any, seed: int
) -> tuple[float, Work, int]:
    """(seconds, work, decoding steps) of one batch."""
    rollouts: list[Any] = []
    seconds = _cpu_seconds(lambda: rollouts.extend(fleet.generate(asked, 1, spec, seed)))
    turns = [turn for group in rollouts for rollout in group for turn in rollout.turns]
    works = [turn_work(facts, len(t.prompt_ids), len(t.token_ids), trained=False) for t in turns]
    return seconds, sum(works, Work()), max(len(t.token_ids) for t in turns)


def _cpu_seconds(call: Any) -> float:
    started_s = time.process_time()
    call()
    return time.process_time() - started_s


@dataclass(frozen=True)
class Predicted:
    """A cell that the model was not fitted on."""

    phase: str
    size: str
    length: int
    measured_s: float
    predicted_s: float
    unseen: str  # what of it the fit did not see

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted_s / self.measured_s


def predictions(results: Path) -> tuple[dict[str, TimeModel], list[Predicted]]:
    """Fit each phase on the calibration cells; predict every other one."""
    cells = [json.loads(p.read_text(encoding="utf-8")) for p in _files(results)]
    models, found = {}, []
    for phase in PHASES:
        runs = [
            (Size(cell["layers"], cell["width"]), run)
            for cell in cells
            for run in cell["runs"]
            if run["phase"] == phase
        ]
        fitted = fit([_run(r) for size, r in runs if not _unseen(size, r["length"])])
        models[phase] = fitted
        found += [
            Predicted(
                phase,
                str(size),
                r["length"],
                r["seconds"],
                fitted.seconds(r["flops"], r["tokens"], r["steps"]),
                unseen,
            )
            for size, r in runs
            if (unseen := _unseen(size, r["length"]))
        ]
    return models, found


def _run(record: dict[str, Any]) -> Run:
    return Run(*(record[name] for name in ("flops", "tokens", "steps", "seconds")))


def _unseen(size: Size, length: int) -> str:
    parts = ["size"] * (size not in CALIBRATION_SIZES)
    parts += ["length"] * (length not in CALIBRATION_LENGTHS)
    return " and ".join(parts)


def _files(results: Path) -> list[Path]:
    return sorted((results / "timing").glob("*.json"))


def folder_of(out: Path, size: Size) -> Path:
    """Where a size's random weights are kept."""
    return out / "sizes" / str(size)
