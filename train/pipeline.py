"""A job from beginning to end: check -> (SFT) -> SRL -> RLVR -> evaluate -> export.

With `more_examples`, SRL's result is measured, solutions of what is weak are written, and SRL runs
once more on them before RLVR.

`run_job` is the same whether `python -m train`, `ray job submit` or a service calls it. A stage
whose result is committed is skipped, so a job that is run again goes on where it was.
"""

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rollout.engine import EngineSpec
from rollout.pool import PoolSpec, RolloutPool
from rollout.types import Problem, RolloutGroup
from train import checkpoint, more_examples
from train.claim import claim, exclusive
from train.data import Row
from train.evaluate import Evaluation, Ledger, evaluate
from train.events import EventLog
from train.export import export_model
from train.performance import report_skills
from train.policy import load_model
from train.preflight import JobData, check_cluster, check_job
from train.prompts import PromptRenderer
from train.rlvr import rlvr_problems
from train.sft import SFTConfigBundle, run_sft, sft_examples
from train.spec import JobSpec, SRLSpec, StageSpec, job_grader
from train.spec_file import spec_to_json
from train.srl import srl_problems, srl_verifier
from train.stage import RESULT_FILE, StageResult, run_stage
from train.stage_run import StageConfig
from train.stop import JobStoppedError, StopRequest

REPORT_FILE, EVENTS_FILE, SAMPLES_FOLDER = "report.json", "events.jsonl", "heldout"
EVALUATION_SEED = 20_251_022
EVENT_DEADLINE_S = 60.0


def run_job(
    spec: JobSpec,
    out: Path,
    checked: tuple[JobData, PromptRenderer] | None = None,
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Run the job in `out`, on the Ray cluster this process is connected to; return the report.

    `checked` is what `check_job` returned, where that was called already; `stop` is looked at
    between two steps, stages and evaluations. Raises JobStoppedError when it was asked to stop, and
    ValueError for a job that cannot be run, before anything starts: also when another process runs
    in `out`, or `out` belongs to another job.
    """
    data, renderer = checked or check_job(spec)
    check_cluster(spec, ray.cluster_resources())
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        claim(spec, out)
        if (out / REPORT_FILE).exists():  # held-out rows are read once
            return json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
        return _run(spec, out, data, renderer, stop or StopRequest())


def _run(
    spec: JobSpec, out: Path, data: JobData, renderer: PromptRenderer, stop: StopRequest
) -> dict[str, Any]:
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    log = ray.remote(EventLog).options(num_cpus=0, scheduling_strategy=node)
    events = log.remote(out / EVENTS_FILE)
    pool = RolloutPool.start(pool_spec(spec), engine_spec(spec))
    job = _Job(spec, out, data, renderer, pool, events, stop)
    try:
        job.emit("message", message="job started")
        results = job.run_stages()
        report = job.report(results)
        checkpoint.write_json(out / REPORT_FILE, report)
        job.emit("message", message="job finished")
        job.now("ended", len(report["rows"]), "finished")
        return report
    except JobStoppedError as stopped:
        where = {"stage": stopped.stage, "step": stopped.step} if stopped.stage else {}
        job.emit("message", message=f"{stopped}; the same command continues", **where)
        raise
    finally:
        pool.stop()
        ray.kill(events)  # pyright: ignore[reportArgumentType]


class _Job:
    """A running job: what every stage of it needs."""

    def __init__(
        self,
        spec: JobSpec,
        out: Path,
        data: JobData,
        renderer: PromptRenderer,
        pool: RolloutPool,
        events: Any,
        stop: StopRequest,
    ) -> None:
        self.spec, self.out, self.data, self.renderer = spec, out, data, renderer
        self.pool, self.events, self.stop = pool, events, stop

    def emit(self, kind: str, **data: Any) -> None:
        """Append an event of the job itself."""
        self._ask(self.events.emit.remote({"type": kind, **data}))

    def now(self, stage: str, step: int, phase: str) -> None:
        """Say what the driver is doing this moment."""
        self._ask(self.events.now.remote(stage, step, phase, os.getpid()))

    def _ask(self, call: Any) -> Any:
        """The event log's answer. Raises ray.exceptions.GetTimeoutError."""
        return ray.get(call, timeout=EVENT_DEADLINE_S)

    def run_stages(self) -> dict[str, StageResult]:
        """Run the stages that the job has; return their results in order."""
        spec, results = self.spec, {}
        model, version = spec.model, 0
        if spec.sft:
            results["sft"] = self._once("sft", self._sft)
            model = str(results["sft"].path)
        for name, stage in spec.reinforcement_stages.items():
            rows = self.data.train
            if name == "srl_2":
                more = self._more_examples(model, version)
                version += 1
                if more is None:  # said in the events: the stage has nothing to learn
                    continue
                rows = more
            run = partial(self._reinforce, name, stage, rows, model, version)
            results[name] = self._once(name, run)
            model = str(results[name].path)
            version += stage.max_steps + 1
        return results

    def _more_examples(self, model: str, version: int) -> list[Row] | None:
        """The training rows with expert solutions of what `model`, SRL's result, is weak at."""

        def emit(level: str, message: str, data: dict[str, Any]) -> None:
            self.emit("message", stage="examples", level=level, message=message, data=data)

        def account(groups: Sequence[RolloutGroup]) -> None:
            ledger = Ledger().add(groups)
            self._ask(self.events.account.remote(ledger.scored, ledger.dropped))

        self.stop.check("before further examples")
        folder = self.out / more_examples.FOLDER
        self._ask(self.events.rewind.remote("examples", -1))  # of a driver that was killed
        emit("info", "measuring SRL's result on training problems, for further examples", {})
        self.now("examples", 0, "measuring, asking for expert solutions")
        if not more_examples.is_measured(folder):
            self.pool.publish(load_model(model, self.spec.rollout.dtype).state_dict(), version)
        job = more_examples.MoreExamples(
            spec=self.spec,
            data=self.data,
            renderer=self.renderer,
            pool=self.pool,
            folder=folder,
            emit=emit,
            observe=account,
            cancelled=lambda: self.stop.requested,
        )
        rows = more_examples.rows_with_more(job)
        self.stop.check("while further examples were written")
        return rows

    def report(self, results: dict[str, StageResult]) -> dict[str, Any]:
        """Evaluate base and stages on held-out rows, export, and put it all into one record."""
        rows = self._evaluate_heldout(results) if self.data.heldout else []
        stage, best = list(results.items())[-1]
        names = [row["name"] for row in rows]
        performance = report_skills(self.out / SAMPLES_FOLDER, names, self.data.heldout)
        for loss in performance.get("regressions", ()):
            self._warn_of(loss, names[0])
        export = export_model(best.path, self.out / "export", self.spec, list(results))
        return {
            "rows": rows,
            **performance,
            "export": str(export),
            "best": {"stage": stage, "step": best.step, "valid_reward": best.valid_reward},
            "protocol": self.spec.sampling.protocol,
            "seed": self.spec.seed,
            "completions": self._completions(),
            "spec": spec_to_json(self.spec),
        }

    def _warn_of(self, loss: dict[str, Any], parent: str) -> None:
        """Say in the job's events what the new policy lost."""
        said = (
            f"regression: of {loss['num_problems']} held-out problems ({loss['skill']}) the new "
            f"model lost {loss['lost']} that {parent} solved, and gained {loss['gained']} "
            f"(p {loss['p_value']:.2g})"
        )
        self.emit("message", level="warn", message=said, data=loss)

    def _once(self, name: str, run: Callable[[], StageResult]) -> StageResult:
        """Run a stage unless its result is committed. Raises JobStoppedError before it starts."""
        file = self.out / name / RESULT_FILE
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            return StageResult(self.out / found["best"], found["step"], found["valid_reward"])
        self.stop.check(f"before stage {name}")
        self.emit("message", stage=name, message=f"stage {name} is being prepared")
        result = run()
        found = {
            "best": str(result.path.relative_to(self.out)),
            "step": result.step,
            "valid_reward": result.valid_reward,
        }
        checkpoint.write_json(file, found)
        return result

    def _sft(self) -> StageResult:
        sft = self.spec.sft
        assert sft is not None
        examples = sft_examples(self.data.train, self.renderer, sft)
        bundle = SFTConfigBundle(self.spec, sft, examples, self.out, self.events)
        return run_sft(bundle, self.out / ".ray", self.stop)

    def _reinforce(
        self, name: str, stage: StageSpec, rows: list[Row], model: str, first_version: int
    ) -> StageResult:
        spec = self.spec
        if isinstance(stage, SRLSpec):
            problems = srl_problems(rows, self.renderer, stage)
            verifier, sampling = srl_verifier(stage), spec.step_sampling_spec(stage)
        else:
            problems = self._problems(rows)
            verifier, sampling = job_grader(spec), spec.sampling_spec(stage.temperature, stage)
        config = StageConfig(
            name=name,
            job=spec,
            stage=stage,
            model=model,
            # SRL goes on, with more rows: its second stage is no new beginning.
            optimizer=Path(model) if name == "srl_2" else None,
            problems=problems,
            verifier=verifier,
            sampling=sampling,
            valid_problems=self._problems(self.data.valid),
            out=self.out,
            first_version=first_version,
            pool=self.pool,
            events=self.events,
        )
        return run_stage(config, self.out / ".ray", self.stop)

    def _problems(self, rows: list[Row]) -> list[Problem]:
        return rlvr_problems(rows, self.renderer, job_grader(self.spec))

    def _evaluate_heldout(self, results: dict[str, StageResult]) -> list[dict[str, Any]]:
        """One row per policy. Held-out rows are read here, once, after all training."""
        policies = {"base": self.spec.model, **_report_names(results)}
        self._ask(self.events.rewind.remote("evaluate", -1))  # of an evaluation that was cut short
        rows = []
        for number, (name, model) in enumerate(policies.items()):
            self.stop.check(f"before the evaluation of {name}")
            self.now("evaluate", number, f"evaluating {name}")
            evaluation = self._evaluate(model, version=-1 - number)
            ledger = evaluation.ledger
            self._ask(self.events.account.remote(ledger.scored, ledger.dropped))
            row = {
                "name": name,
                "greedy": evaluation.greedy,
                f"pass_at_{self.spec.evaluation.pass_k}": evaluation.pass_at_k,
                "sampled": evaluation.sampled,
                "mean_reward": evaluation.mean_reward,
                "num_problems": evaluation.num_problems,
                "num_without_verdict": evaluation.num_without_verdict,
                "ci95": list(evaluation.ci95),
                "seconds": round(evaluation.seconds, 2),
            }
            rows.append(row)
            self._write_samples(name, evaluation)
            said = f"held-out {name}: greedy {evaluation.greedy:.3f}"
            self.emit("evaluation", stage="evaluate", step=number, message=said, **row)
        return rows

    def _write_samples(self, name: str, evaluation: Evaluation) -> None:
        """What the policy wrote on each held-out row, one JSON object per line."""
        folder = self.out / SAMPLES_FOLDER
        folder.mkdir(exist_ok=True)
        lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in evaluation.samples]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")

    def _evaluate(self, model: str, version: int) -> Evaluation:
        weights = load_model(model, self.spec.rollout.dtype).state_dict()
        self.pool.publish(weights, version)
        settings = self.spec.evaluation
        return evaluate(
            self.pool,
            self._problems(self.data.heldout),
            job_grader(self.spec),
            self.spec.sampling_spec(temperature=0.0),
            pass_k=settings.pass_k,
            sampled=self.spec.sampling_spec(settings.temperature),
            seed=EVALUATION_SEED,
        )

    def _completions(self) -> dict[str, Any]:
        """What this attempt's engines finished, by their own counters, and what became of it.

        The two sides are equal unless an actor died: an engine's counter starts anew with it, and
        a learner that dies takes the rollouts with it that it had not entered yet.
        """
        return {**self.pool.counts(), **self._ask(self.events.requests.remote())}


def engine_spec(spec: JobSpec) -> EngineSpec:
    """The job's engines."""
    rollout = spec.rollout
    return EngineSpec(
        model=spec.model,
        dtype=rollout.dtype,
        seed=spec.seed,
        max_model_len=rollout.max_model_len,
        max_num_seqs=rollout.max_num_seqs,
        kv_cache_gib=rollout.kv_cache_gib,
        num_threads=rollout.num_threads,
    )


def pool_spec(spec: JobSpec) -> PoolSpec:
    """The job's fleet."""
    fields = PoolSpec.__dataclass_fields__
    return PoolSpec(**{name: value for name, value in spec.rollout if name in fields})


def _report_names(results: dict[str, StageResult]) -> dict[str, str]:
    """{"srl": ..., "srl_rlvr": ...}: each row is named by the stages behind it."""
    names: list[str] = []
    named = {}
    for stage, result in results.items():
        names.append(stage)
        named["_".join(names)] = str(result.path)
    return named
