"""Runs a sweep: Ray Tune draws trial after trial, ASHA stops them, the best meets the default.

The settings are fixed before the first trial, and all that is concluded is read from the trials'
folders; Tune's own notes say only which trials have ended.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from train import checkpoint
from train.claim import differences, exclusive, identity
from train.sweep.compare import compare, verdict
from train.sweep.job import TRAIN, JobFailedError
from train.sweep.spec import SweepSpec
from train.sweep.trials import OUT, Trial, heldout_marks, read_trials, write_trials

TRIALS, SLOTS, TUNE = "trials", "slots", "tune"
SWEEP_FILE, RESULT_FILE = "spec.json", "sweep.json"
FAILED = "failed"  # how a trial ended that `--resume` tries again
SNAPSHOT_S = "5"  # between Tune's snapshots; a trial that ended since is only read again

Say = Callable[[str], None]


class SweepError(ValueError):
    """The folder does not fit the sweep, or the default cannot be trained."""


def run_sweep(
    spec: SweepSpec,
    out: Path,
    *,
    resume: bool = False,
    say: Say = print,
    command: Sequence[str] = TRAIN,
) -> dict[str, Any]:
    """Run the sweep in `out`, or go on with it; return its result, which is written there too.

    Brings a Ray of its own, which ends with it; every job brings another. `command` starts a job
    when `--spec` and `--out` are added. Raises SweepError, and SpecError when another process runs
    in `out`.
    """
    from train.sweep.trainable import Place

    environment = dict(os.environ)  # before Ray changes it
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        claim(spec, out, resume)
        write_trials(spec, out / TRIALS)
        place = Place(out / TRIALS, out / SLOTS, spec.max_concurrent, environment, command)
        result = _read(out / RESULT_FILE)
        if result is None or any(trial["ended"] == FAILED for trial in result["trials"]):
            errors = _tune(spec, out / TUNE, place, say)
            result = conclude(place, errors, say)
            checkpoint.write_json(out / RESULT_FILE, result)
    return result


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def claim(spec: SweepSpec, out: Path, resume: bool) -> None:
    """Write down which sweep `out` holds, or check that it is this one. Raises SweepError."""
    found = _read(out / SWEEP_FILE)
    if found is not None and not resume:
        raise SweepError(f"{out} holds a sweep: add --resume to go on with it, or choose another")
    wanted = _identity(spec)
    if found is None:
        checkpoint.write_json(out / SWEEP_FILE, wanted)
    elif found.keys() != wanted.keys():
        raise SweepError(
            f"{out} holds a sweep of another version of Ferrata: choose another --out, or remove "
            "the folder"
        )
    elif differing := sorted(differences(found, wanted)):
        raise SweepError(
            f"{out} holds another sweep, which differs in {', '.join(differing)}: choose another "
            "--out, or remove the folder"
        )


def _identity(spec: SweepSpec) -> dict[str, Any]:
    """What the sweep compares: its fields, its job, the rows that are mixed. Trials are of these.

    Files are known by a sha256, wherever they stand.
    """
    described, job = json.loads(spec.model_dump_json(exclude={"job"})), spec.job_of({})
    described["settings"] = {str(n): setting for n, setting in enumerate(spec.settings())}
    if spec.mix is None:
        return {"sweep": described, "job": identity(job), "mix_sha256": {}}
    for source in described["mix"]["sources"].values():
        del source["path"]
    files = {name: source.path for name, source in spec.mix.sources.items()}
    # No trial reads the job's own rows, and there may be none: another file stands in, unnamed.
    data = job.data.model_copy(update={"train": next(iter(files.values()))})
    found = identity(job.model_copy(update={"data": data}))
    del found["sha256"]["data.train"]
    mixed = {name: checkpoint.sha256(path) for name, path in files.items()}
    return {"sweep": described, "job": found, "mix_sha256": mixed}


def _tune(spec: SweepSpec, folder: Path, place: Any, say: Say) -> dict[int, str]:
    """Run all trials; return the words of those that failed, by number."""
    import logging

    import ray

    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SNAPSHOT_S
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the sweep; it can be gone on with
    ray.init(
        address="local",
        num_cpus=spec.max_concurrent,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    try:
        grid = _tuner(spec, folder, place, say).fit()
    finally:
        ray.shutdown()
    return {
        result.config["trial"]: str(result.error).strip().splitlines()[-1]
        for result in grid
        if result.error is not None
    }


def _tuner(spec: SweepSpec, folder: Path, place: Any, say: Say) -> Any:
    from ray import tune

    from train.sweep.progress import TrialLines
    from train.sweep.trainable import METRIC, NUMBER, FolderASHA, SweepTrial

    trainable = tune.with_resources(tune.with_parameters(SweepTrial, place=place), {"CPU": 1})
    if tune.Tuner.can_restore(str(folder)):
        return tune.Tuner.restore(str(folder), trainable, resume_errored=True)
    return tune.Tuner(
        trainable,
        param_space={NUMBER: tune.grid_search(list(range(spec.num_trials)))},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            scheduler=FolderASHA(place.root, spec.grace_steps, spec.reduction_factor),
            max_concurrent_trials=spec.max_concurrent,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[TrialLines(place.root, say)],
            verbose=0,
        ),
    )


def conclude(place: Any, errors: dict[int, str], say: Say) -> dict[str, Any]:
    """Finish the default and the best trial where ASHA had stopped them, and compare the two."""
    trials = read_trials(place.root)
    if trials[0].best is None:
        raise SweepError(f"the default came to no validation: {errors.get(0, 'it was stopped')}")
    while True:  # what goes on to its end may validate better, or another come out as the best
        usable = [t for t in trials if t.number == 0 or t.finished or t.number not in errors]
        best = choose(usable)
        unfinished = [trial for trial in (best, trials[0]) if not trial.finished]
        if best.number == 0 or not unfinished:
            break
        for trial in unfinished:
            say(f"trial {trial.number}: goes on to its end, to be compared")
            place.job(trial.number).run()
        trials = read_trials(place.root)
    if best.number == 0:
        found = None
    else:
        marks = [heldout_marks(trial.folder / OUT) for trial in (best, trials[0])]
        found = compare(*marks)
    return {
        "trials": [_record(trial, errors) for trial in read_trials(place.root)],
        "best": best.number,
        "heldout": found,
        "verdict": verdict(found),
    }


def choose(trials: Sequence[Trial]) -> Trial:
    """The trial with the best validation; of equals the one with fewer steps to it, the earlier.

    The default, number 0, keeps its place unless another validates better.
    """
    measured = [(trial, trial.best) for trial in trials if trial.best is not None]
    if not measured:
        raise JobFailedError("no trial came to a validation")
    return max(measured, key=lambda m: (m[1].reward, m[0].number == 0, -m[1].steps, -m[0].number))[
        0
    ]


def _record(trial: Trial, errors: dict[int, str]) -> dict[str, Any]:
    error = None if trial.finished else errors.get(trial.number)  # the default may end later
    ended = "finished" if trial.finished else "stopped" if error is None else FAILED
    return {
        "trial": trial.number,
        "setting": trial.setting,
        "validations": [list(found) for found in trial.validations],
        "best_valid_reward": trial.best.reward if trial.best else None,
        "steps": trial.validations[-1].steps if trial.validations else 0,
        "ended": ended,
        "error": error,
    }
