"""`python -m benchmarks.generation`: runs what cells are missing, then writes the report.

A cell is one arm of one seed, one JSON file. The arms differ in nothing but how
`train.experts.generator` shares the same number of examples out over the skills, and whether rows
that the student never solves are asked (`_unsolved`); `none` is the student before it learns.
"""

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.generation import task
from benchmarks.generation.models import (
    STUDENT_DOCUMENTS,
    STUDENT_RATE,
    STUDENT_STEPS,
    CheckpointTeacher,
    Sampler,
    careless,
    fit,
    right,
    solved,
)
from benchmarks.generation.report import ARMS, RESULTS, render
from benchmarks.learning.cells import provenance
from rollout.vector_math import use_threads
from train.data import Row
from train.experts.generator import DynamicExampleGenerator
from train.experts.orchestrator import CollaborationOrchestrator
from train.experts.outcomes import Outcomes
from train.experts.verification import verifier_of

COUNT, MAX_ROUNDS, SAMPLES = 64, 2, 6
POOL_PER_KIND, HELDOUT_PER_KIND, DATA_SEED = 100, 60, 3
TEACHER_SEED = 100


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=task.ROOT / "out" / "generation")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the cells stand")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=Path, help="write the report here and run nothing")
    args = parser.parse_args()
    if args.report is None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        use_threads(args.threads)
        for seed in args.seeds:
            run_seed(args.out, args.results, seed)
    target = args.report or args.out / "generation.md"
    target.write_text(render(args.results), encoding="utf-8")
    print(f"{target} written")


def run_seed(out: Path, results: Path, seed: int) -> None:
    """Run the missing arms of one seed."""
    cells = {arm: results / f"seed-{seed}" / f"{arm}.json" for arm in ARMS}
    missing = [arm for arm in ARMS if not cells[arm].exists()]
    if not missing:
        return
    tiny = task.ROOT / "models" / "ferrata-tiny"
    teacher, base = out / "teacher", out / f"student-{seed}"
    if not (teacher / "tokenizer.json").exists():
        fit(tiny, teacher, right, TEACHER_SEED)
    if not (base / "tokenizer.json").exists():
        fit(tiny, base, careless, seed)
    taken: set[str] = set()
    heldout = task.rows(DATA_SEED, "heldout", HELDOUT_PER_KIND, taken)
    pool = task.rows(DATA_SEED + 1, "pool", POOL_PER_KIND, taken)
    outcomes = measured(Sampler(base), pool, seed)
    for arm in missing:
        started_s = time.monotonic()
        student, told = base, {}
        if arm != "none":
            student = out / f"{arm}-{seed}"
            told = teach(arm, teacher, base, student, pool, heldout, outcomes, seed)
        texts = Sampler(student).write([row.problem_text for row in heldout], 0.0, seed)
        marks = {
            row.problem_text: solved(text, row.reference_answer)
            for row, text in zip(heldout, texts, strict=True)
        }
        cell = {
            "arm": arm,
            "seed": seed,
            "count": COUNT,
            "base_sha256": digest(base),
            "teacher_sha256": digest(teacher),
            **provenance(),
            "seconds": round(time.monotonic() - started_s, 1),
            **told,
            "heldout": marks,
        }
        write_cell(cells[arm], cell)
        print(f"seed {seed} {arm}: {sum(marks.values()) / len(marks):.3f} held-out", flush=True)


def measured(student: Sampler, pool: list[Row], seed: int) -> Outcomes:
    """SAMPLES samples of every row of the pool."""
    outcomes = Outcomes()
    for k in range(SAMPLES):
        texts = student.write([row.problem_text for row in pool], 1.0, seed * 1000 + k)
        for row, text in zip(pool, texts, strict=True):
            outcomes.add(row.id, 1, int(solved(text, row.reference_answer)))
    return outcomes


def teach(
    arm: str,
    teacher: Path,
    base: Path,
    student: Path,
    pool: list[Row],
    heldout: list[Row],
    outcomes: Outcomes,
    seed: int,
) -> dict[str, Any]:
    """Have COUNT examples written and the student trained on them; return what was done."""
    writer = CheckpointTeacher(
        Sampler(teacher),
        f"checkpoint:{digest(teacher)[:12]}",
        [row.problem_text for row in pool],
        seed * 1000 + 500,
    )
    mode, _, unsolved = arm.partition("_")
    asking = CollaborationOrchestrator(
        writer,
        verifier_of(None, "single"),
        max_rounds=MAX_ROUNDS,
        repair="reasons",  # the conversation's length tells the teacher which round it is
        concurrency=1,
        seed=seed,
    )
    generator = DynamicExampleGenerator(
        asking,
        mode="weakness" if mode == "weakness" else "uniform",
        seed=seed,
        ask_unsolved=bool(unsolved),
    )
    made = generator.generate(pool, COUNT, outcomes=outcomes, held_out=heldout)
    problems = {row.id: row.problem_text for row in pool}
    documents = [
        (problems[i], task.as_text(list(s.steps), s.answer)) for i, s in made.solutions.items()
    ]
    if len(documents) < COUNT:
        raise RuntimeError(
            f"the teacher solved {len(documents)} problems, {COUNT} are wanted: "
            f"{made.collected.describe()}; train it longer (BASE_STEPS)"
        )
    fit(
        base,
        student,
        lambda rng: rng.choice(documents),
        seed,
        steps=STUDENT_STEPS,
        documents=STUDENT_DOCUMENTS,
        learning_rate=STUDENT_RATE,
    )
    kinds: dict[str, int] = dict.fromkeys(task.KINDS, 0)
    for row_id in made.solutions:
        kinds[task.kind_of(problems[row_id])] += 1
    return {
        "examples": kinds,
        "left_out": made.left_out,
        "teacher": made.collected.summary(),
        "standings": {
            skill: {"pass_rate": one.pass_rate, "ci95": one.ci95, "surely_weak": one.surely_weak}
            for skill, one in made.standings.items()
        },
    }


def digest(model: Path) -> str:
    """SHA-256 of the model's weights file, in hexadecimal."""
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def write_cell(path: Path, cell: dict[str, Any]) -> None:
    """Write so that a reader sees the whole cell or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_suffix(".writing")
    hidden.write_text(json.dumps(cell) + "\n", encoding="utf-8")
    hidden.replace(path)


if __name__ == "__main__":
    main()
