"""Runs a sweep on the Ray cluster that this process is connected to, and says what came of it.

Trials are jobs (`train.pipeline.run_job`), each in a folder of its own, so that one that is killed
goes on from its last committed checkpoint. Tune draws the settings and ASHA stops those that fall
behind; what is compared in the end is read from the folders.
"""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

from train.spec import JobSpec
from train.statistics import wilson_interval
from train.sweep.spec import Domain, SweepSpec
from train.sweep.trials import Trial, read_trials, validations, write_setting

TRIALS, TUNE, RESULT_FILE, IDENTITY_FILE = "trials", "tune", "sweep.json", "identity.json"
POLL_S = 0.5
NO_LIMIT = 10**9  # ASHA's own end of a trial; a job ends by itself
Z95 = 1.959964


class SweepError(ValueError):
    """The folder belongs to another sweep, or no trial gave a validation."""


def run_sweep(spec: SweepSpec, out: Path) -> dict[str, Any]:
    """Run or go on with the sweep in `out`; return its result, which is written there too."""
    out.mkdir(parents=True, exist_ok=True)
    _claim(spec, out)
    result_grid = _tuner(spec, out).fit()
    if result_grid.errors:
        raise result_grid.errors[0]
    trials = read_trials(out / TRIALS)
    if all(not trial.validations for trial in trials):
        raise SweepError(f"{out}: no trial came to a validation; lower the job's eval_interval")
    default = next(trial for trial in trials if trial.is_default)
    best = max(trials, key=lambda t: (t.best, t.is_default, -len(t.validations)))
    for trial in (best, default):
        if not trial.finished:  # ASHA had stopped it; the two are compared at their ends
            _finish(spec, trial)
    heldout = _compare(spec, best, default)
    result = _result(spec, read_trials(out / TRIALS), best.name, default.name, heldout)
    (out / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _claim(spec: SweepSpec, out: Path) -> None:
    """Refuse a folder in which another sweep stands."""
    wanted = json.loads(spec.model_dump_json())
    file = out / IDENTITY_FILE
    if not file.exists():
        file.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
    elif json.loads(file.read_text(encoding="utf-8")) != wanted:
        raise SweepError(f"{out} holds another sweep; give this one a folder of its own")


def _tuner(spec: SweepSpec, out: Path) -> Any:
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    # The trial's actor only waits for its job, whose own actors reserve what they need; a byte of
    # memory, since Tune places no actor that reserves nothing.
    trainable = tune.with_resources(
        tune.with_parameters(_train, spec=spec, root=out / TRIALS),
        tune.PlacementGroupFactory([{"memory": 1}]),
    )
    folder = out / TUNE
    if tune.Tuner.can_restore(str(folder)):
        return tune.Tuner.restore(str(folder), trainable, resume_errored=True)
    default = spec.default()
    return tune.Tuner(
        trainable,
        param_space={name: _space(domain) for name, domain in spec.parameters.items()},
        tune_config=tune.TuneConfig(
            metric="valid_reward",
            mode="max",
            num_samples=spec.num_trials,
            max_concurrent_trials=spec.max_concurrent,
            search_alg=BasicVariantGenerator(points_to_evaluate=[default], random_state=spec.seed),
            scheduler=AsyncHyperBandScheduler(
                time_attr="step",
                max_t=NO_LIMIT,
                grace_period=spec.grace_steps,
                reduction_factor=spec.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(name=TUNE, storage_path=str(out.resolve()), verbose=1),
    )


def _space(domain: Domain) -> Any:
    from ray import tune

    if domain.choice is not None:
        return tune.choice(domain.choice)
    name = next(n for n in ("uniform", "loguniform", "randint") if getattr(domain, n) is not None)
    return getattr(tune, name)(*getattr(domain, name))


def _train(config: dict[str, Any], spec: SweepSpec, root: Path) -> None:
    """One trial, in an actor of Tune's: the job in a task, its validations told as they come."""
    import ray
    from ray import tune
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    folder = root / tune.get_context().get_trial_id()
    write_setting(folder, config, is_default=config == spec.default())
    # Outside the trial's placement group, which would hold every actor of the job captive. The
    # task, and so its actors, end with this one: stopping a trial stops its job.
    free = PlacementGroupSchedulingStrategy(placement_group=None)  # pyright: ignore[reportArgumentType]
    job = ray.remote(run_trial).options(num_cpus=0, max_retries=0, scheduling_strategy=free)
    running = job.remote(spec, config, folder / "out")
    told, best, ended = 0, -math.inf, False
    while not ended:
        # Asked first: what it wrote before its end is read below.
        ended = bool(ray.wait([running], timeout=POLL_S)[0])
        found = validations(folder / "out")
        for step, reward in found[told:]:
            best = max(best, reward)
            tune.report({"step": step, "valid_reward": best})
        told = len(found)
    ray.get(running)  # raises what the job raised


def run_trial(spec: SweepSpec, values: dict[str, Any], out: Path) -> None:
    """Run a trial's job to its end, without held-out rows: those are for the last comparison."""
    from train.pipeline import run_job

    run_job(_without_heldout(spec.job_of(values)), out)


def _without_heldout(job: JobSpec) -> JobSpec:
    return job.model_copy(update={"data": job.data.model_copy(update={"heldout": None})})


def _finish(spec: SweepSpec, trial: Trial) -> None:
    run_trial(spec, trial.parameters, trial.folder)


def _compare(spec: SweepSpec, best: Trial, default: Trial) -> dict[str, Any] | None:
    """Both models on the job's held-out rows, paired; None without such rows."""
    job = spec.job_of({})
    if job.data.heldout is None:
        return None
    policies = {trial.name: trial for trial in (default, best)}
    solved = {name: _solved(job, trial.folder / "export") for name, trial in policies.items()}
    rows = {
        name: {
            "greedy": fmean(marks),
            "ci95": list(wilson_interval(sum(marks), len(marks))),
            "num_problems": len(marks),
        }
        for name, marks in solved.items()
    }
    gains = [b - d for b, d in zip(solved[best.name], solved[default.name], strict=True)]
    return {"policies": rows, "difference": paired_difference(gains)}


def paired_difference(gains: list[int]) -> dict[str, Any]:
    """Mean of the differences on the same problems, with its normal 95% interval."""
    mean = fmean(gains)
    variance = fmean((gain - mean) ** 2 for gain in gains)
    half = Z95 * math.sqrt(variance / len(gains))
    return {"mean": mean, "ci95": [mean - half, mean + half]}


def _solved(job: JobSpec, model: Path) -> list[int]:
    """Whether each held-out problem is solved greedily, 1 or 0, in the order of the rows."""
    from rollout.pool import RolloutPool
    from train.data import read_rows
    from train.evaluate import evaluate
    from train.pipeline import engine_spec, pool_spec
    from train.policy import load_model
    from train.prompts import PromptRenderer, load_tokenizer
    from train.rlvr import rlvr_problems
    from train.stage_run import job_grader

    assert job.data.heldout is not None, "asked for only where there are held-out rows"
    renderer = PromptRenderer(load_tokenizer(job), job.prompt)
    problems = rlvr_problems(read_rows(job.data.heldout), renderer, job_grader(job))
    pool = RolloutPool.start(pool_spec(job), engine_spec(job))
    try:
        pool.publish(load_model(str(model), job.rollout.dtype).state_dict(), 0)
        found = evaluate(pool, problems, job_grader(job), job.sampling_spec(temperature=0.0))
    finally:
        pool.stop()
    return [int(sample["solved"]) for sample in found.samples]


def _result(
    spec: SweepSpec,
    trials: list[Trial],
    best: str,
    default: str,
    heldout: dict[str, Any] | None,
) -> dict[str, Any]:
    rows = [
        {
            "name": trial.name,
            "parameters": trial.parameters,
            "default": trial.is_default,
            "best_valid_reward": trial.best,
            "last_step": trial.last_step,
            "finished": trial.finished,
            "validations": [list(point) for point in trial.validations],
        }
        for trial in trials
    ]
    return {
        "best": best,
        "default": default,
        "verdict": verdict(best == default, heldout),
        "set": spec.overrides(next(t.parameters for t in trials if t.name == best)),
        "heldout": heldout,
        "trials": rows,
    }


def verdict(is_default: bool, heldout: dict[str, Any] | None) -> str:
    """What the sweep found, in a sentence."""
    if is_default:
        return "No setting validates better than the job as it stands."
    if heldout is None:
        return (
            "The best setting validates better than the default; without held-out rows it is not "
            "known how much of that is luck."
        )
    low, high = heldout["difference"]["ci95"]
    gain = f"{heldout['difference']['mean']:+.3f} ({low:+.3f} to {high:+.3f})"
    if low > 0:
        return f"The best setting is better than the default on held-out rows: {gain}."
    if high < 0:
        return f"The best setting by validation is worse than the default on held-out rows: {gain}."
    return f"No setting is surely better than the default on held-out rows: {gain}."
