"""Between SRL and RLVR: which problems are still weak, and expert solutions of them.

    SRL's result -> measured on training rows -> shares per skill -> solutions, verified
                 -> `examples/rows.jsonl`, which the second SRL stage learns beside the first rows

Done once: what is known lies in the job's folder, and a job that was killed goes on there. Called
by the pipeline, which has published SRL's result to the pool.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout.types import RolloutGroup
from train import checkpoint
from train.data import DataError, Row
from train.experts.by_teacher import NothingToAskError, write_examples
from train.experts.engine_teacher import TeacherStartError
from train.experts.families import Solution
from train.experts.generator import Generated
from train.experts.measure import MeasuringCancelledError, measure
from train.experts.outcomes import Outcomes
from train.experts.solver import with_solution
from train.experts.weakness import Standing
from train.preflight import JobData
from train.prompts import PromptRenderer, check_lengths
from train.spec import JobSpec, MoreExamplesSpec, job_grader

if TYPE_CHECKING:
    from rollout.pool import RolloutPool

FOLDER, MEASURED_FILE, RESULT_FILE = "examples", "measured.json", "result.json"
ROWS_FILE, JOURNAL_FILE = "rows.jsonl", "teacher.jsonl"
MEASURE_SEED = 20_261_129

# emit(level, message, data) appends an event of the job.
Emit = Callable[[str, str, dict[str, Any]], None]


@dataclass(frozen=True)
class MoreExamples:
    """What it takes of a job."""

    spec: JobSpec
    data: JobData
    renderer: PromptRenderer
    pool: "RolloutPool"  # holds the weights of SRL's result
    folder: Path  # of this part alone
    emit: Emit
    observe: Callable[[Sequence[RolloutGroup]], None]  # sees what was sampled to measure
    cancelled: Callable[[], bool]

    @property
    def settings(self) -> MoreExamplesSpec:
        """Of the job's specification."""
        assert self.spec.more_examples is not None
        return self.spec.more_examples


def is_measured(folder: Path) -> bool:
    """True when the policy's weights are not needed any more."""
    return (folder / MEASURED_FILE).exists()


def rows_with_more(job: MoreExamples) -> list[Row] | None:
    """The training rows with the new steps in; None when no solution could be had.

    Without a solution the job goes on: its events warn. When `cancelled` says True nothing more is
    asked and nothing is concluded; the caller has to stop before it uses what is returned.
    """
    job.folder.mkdir(exist_ok=True)
    kept = job.folder / RESULT_FILE
    if not kept.exists():
        try:
            result, solutions = _write(job)
        except MeasuringCancelledError:
            return None
        if job.cancelled():
            return None
        provenance = result.pop("provenance", {})
        _write_rows(job.folder / ROWS_FILE, job.data.train, solutions, provenance)
        job.emit("info" if solutions else "warn", result["message"], result)
        checkpoint.write_json(kept, result | {"solutions": _as_json(solutions)})
    found = json.loads(kept.read_text(encoding="utf-8"))["solutions"]
    if not found:
        return None
    solutions = {
        row_id: Solution(s["family"], tuple(s["steps"]), s["answer"], tuple(s["thoughts"]))
        for row_id, s in found.items()
    }
    return with_solutions(job.data.train, solutions)


def with_solutions(rows: list[Row], solutions: dict[str, Solution]) -> list[Row]:
    """The rows, those that were solved with their steps."""
    return [with_solution(row, solutions[row.id]) if row.id in solutions else row for row in rows]


def _write(job: MoreExamples) -> tuple[dict[str, Any], dict[str, Solution]]:
    """(what to tell of it, the solutions by row id)."""
    spec, data, more = job.spec, job.data, job.settings
    outcomes = _measured(job)
    try:
        made = write_examples(
            data.train,
            more.teacher,
            more.num_examples,
            grader=job_grader(spec),
            protocol=spec.sampling.protocol,
            seed=spec.seed,
            journal=job.folder / JOURNAL_FILE,
            documents=[path.read_text(encoding="utf-8") for path in more.documents],
            held_out=[*data.valid, *data.heldout],
            model_path=more.teacher_model,
            mode=more.mode,
            outcomes=outcomes,
            cancelled=job.cancelled,
        )
    except (NothingToAskError, TeacherStartError) as error:
        # Acceptable: SRL's result stands, and RLVR needs no steps. The warning says why.
        return {"message": f"no further examples: {error}"}, {}
    solutions, too_long = _that_fit(job, made)
    return _told(made, outcomes, solutions, too_long), solutions


def _measured(job: MoreExamples) -> Outcomes:
    """What SRL's result does on training rows; kept, for shares and journal depend on it."""
    kept = job.folder / MEASURED_FILE
    if not kept.exists():
        found = measure(
            job.spec,
            job.pool,
            job.renderer,
            job.data.train,
            num_problems=job.settings.num_problems,
            num_samples=job.settings.num_samples,
            seed=MEASURE_SEED,
            observe=job.observe,
            cancelled=job.cancelled,
        )
        checkpoint.write_json(kept, found.as_json())
    return Outcomes.from_json(json.loads(kept.read_text(encoding="utf-8")))


def _that_fit(job: MoreExamples, made: Generated) -> tuple[dict[str, Solution], dict[str, str]]:
    """(the solutions that the model's context and the job's limits hold, why others do not fit)."""
    rows = {row.id: row for row in job.data.train}
    fitting, too_long = {}, {}
    for row_id, solution in made.solutions.items():
        row = with_solution(rows[row_id], solution)
        try:
            check_lengths(job.spec, job.renderer, job.spec.data.train, [row])
        except DataError as error:
            too_long[row_id] = "; ".join(f"line {bad.line}: {bad.message}" for bad in error.lines)
        else:
            fitting[row_id] = solution
    return fitting, too_long


def _told(
    made: Generated, outcomes: Outcomes, solutions: dict[str, Solution], too_long: dict[str, str]
) -> dict[str, Any]:
    sampled = [one.num_samples for one in outcomes.by_row.values() if one.num_samples]
    most = max(sampled, default=0)
    said = (
        f"SRL's result on {len(sampled)} training problems, {most} samples each: "
        f"{'; '.join(map(_in_words, made.standings.values()))}. {len(solutions)} examples for a "
        f"second SRL stage, shared by {made.mode} "
        f"({', '.join(f'{n} of {skill}' for skill, n in made.planned.items() if n) or 'none'}): "
        f"{made.collected.describe()}"
    )
    if too_long:
        first = next(iter(too_long.values()))
        said += f"; {len(too_long)} do not fit the job's limits, first: {first}"
    return {
        "message": said,
        "mode": made.mode,
        "planned": made.planned,
        "left_out": made.left_out,
        "standings": {skill: _standing(one) for skill, one in made.standings.items()},
        "num_too_long": len(too_long),
        "counts": made.collected.summary(),
        "provenance": made.provenance,
    }


def _in_words(one: Standing) -> str:
    low, high = one.ci95
    steps = "" if one.step_reward is None else f", step reward {one.step_reward:.3f}"
    weak = ", surely weak" if one.surely_weak else ""
    return f"{one.skill} solved {one.pass_rate:.3f} ({low:.3f}-{high:.3f}){steps}{weak}"


def _standing(one: Standing) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(one).items()}


def _as_json(solutions: dict[str, Solution]) -> dict[str, Any]:
    return {row_id: asdict(solution) for row_id, solution in solutions.items()}


def _write_rows(
    path: Path, rows: list[Row], solutions: dict[str, Solution], provenance: dict[str, Any]
) -> None:
    """The solved rows as they could be trained on again, a line each."""
    lines = [
        json.dumps(
            {
                "messages": list(row.messages),
                **with_solution(row, solutions[row.id]).item,
                "provenance": provenance.get(row.id),
            },
            ensure_ascii=False,
        )
        for row in rows
        if row.id in solutions
    ]
    hidden = path.with_name(f".{path.name}")
    hidden.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    hidden.replace(path)
