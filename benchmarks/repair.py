"""Does a rejected draft mend better with the verifier's reasons, or by drawing another one blindly?

A language model teaches, the real orchestrator asks it for solutions of sums, both ways, with the
same rows, the same seeds and the same number of drafts at most. A cell is one way from one seed:
one JSON file, run unless it exists.

    python -m benchmarks.repair --model FOLDER --name NAME
    python -m benchmarks.repair --report docs/repair.md
"""

import argparse
import json
import os
import random
import secrets
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rollout.verifiers.registry import parse_grader
from train.data import Row
from train.experts.engine_teacher import EngineTeacher, EngineTeacherSpec, engine_teacher
from train.experts.orchestrator import CollaborationOrchestrator
from train.experts.retriever import Retriever, solved_examples
from train.experts.verification import verifier_of
from train.statistics import bonett_price_interval

RESULTS = Path(__file__).with_name("repair_results")
ARMS = ("reasons", "blind")
SEEDS, NUM_ROWS, ROUNDS, MAX_TOKENS, TEMPERATURE = (0, 1, 2), 48, 3, 128, 0.7
NUM_EXAMPLES, EXAMPLES_SEED = 12, 1000  # solved ones; the retriever picks three for each row


def sums(seed: int, count: int) -> list[Row]:
    """Sums of two numbers of two digits, no two alike."""
    rng, rows = random.Random(seed), {}
    while len(rows) < count:
        first, second = rng.randint(10, 99), rng.randint(10, 99)
        question = f"What is {first} + {second}?"
        message = {"role": "user", "content": question}
        rows[question] = Row(question, (message,), reference_answer=str(first + second))
    return list(rows.values())


def solved(count: int, taken: list[Row]) -> list[Row]:
    """Other sums with the steps of an expert: tens, ones, and both together."""
    problems, rows = {row.id for row in taken}, []
    for row in sums(EXAMPLES_SEED, count + len(taken)):
        first, second = (int(part) for part in row.problem_text[8:-1].split(" + "))
        tens, ones = first // 10 * 10 + second // 10 * 10, first % 10 + second % 10
        steps = (
            f"**Tens**: {first // 10 * 10} + {second // 10 * 10} = {tens}",
            f"**Ones**: {first % 10} + {second % 10} = {ones}",
            f"**Sum**: {tens} + {ones} = {first + second}",
        )
        if row.id not in problems:
            rows.append(replace(row, expert_steps=steps))
    return rows[:count]


def run_cell(
    teacher: EngineTeacher, cell: Path, arm: str, seed: int, num_examples: int, facts: dict
) -> None:
    """Ask for every row, this way, and write what became of it."""
    from benchmarks.learning.cells import provenance, write_cell

    started_s = time.monotonic()
    spec = teacher.spec
    rows = sums(seed, NUM_ROWS)
    orchestrator = CollaborationOrchestrator(
        teacher,
        verifier_of(parse_grader({"type": "answer"}), "single"),
        Retriever(solved_examples(solved(num_examples, rows))),
        max_rounds=ROUNDS,
        repair="reasons" if arm == "reasons" else "blind",
        concurrency=spec.concurrency,
        seed=seed,
    )
    found = orchestrator.collect(rows)
    if found.stopped:
        raise RuntimeError(f"{cell.stem}: {found.stopped}; a cell that is not whole is not kept")
    told = found.summary()
    # The draft that was accepted, counted from 1; null where none was.
    accepted_at = {
        one.row_id: one.drafts if one.outcome == "accepted" else None
        for one in sorted(found.asked, key=lambda one: one.row_id)
    }
    write_cell(
        cell,
        {
            **facts,
            "arm": arm,
            "seed": seed,
            **provenance(),
            "settings": settings(num_examples),
            "seconds": round(time.monotonic() - started_s, 1),
            "summary": told,
            "accepted_at": accepted_at,
        },
    )


def settings(num_examples: int) -> dict[str, Any]:
    """What cells must share to stand beside each other."""
    return {
        "num_rows": NUM_ROWS,
        "rounds": ROUNDS,
        "max_tokens": MAX_TOKENS,
        "temperature": TEMPERATURE,
        "num_examples": num_examples,
    }


def share(cell: dict[str, Any], rounds: int) -> float:
    """Rows accepted after so many drafts at most."""
    return fmean(at is not None and at <= rounds for at in cell["accepted_at"].values())


def paired(pairs: list[tuple[bool, bool]]) -> tuple[float, float, float]:
    """(mean, lower, upper) of first - second over rows: Bonett's and Price's interval, 95%.

    Every seed draws rows and samples of its own, so a row of a seed is one independent pair.
    """
    gained = sum(first and not second for first, second in pairs)
    lost = sum(second and not first for first, second in pairs)
    return (gained - lost) / len(pairs), *bonett_price_interval(gained, lost, len(pairs))


def render(results: Path) -> str:
    """The page, in Markdown, from whatever cells there are."""
    cells = [json.loads(path.read_text("utf-8")) for path in sorted(results.glob("*/*.json"))]
    lines = [
        "# Repair with reasons against blind retry",
        "",
        "Written by `python -m benchmarks.repair --report docs/repair.md` from the cells in "
        "`benchmarks/repair_results`.",
        "",
        "A teacher that is a language model, on the cluster's own engine, writes solutions of sums "
        f"of two numbers of two digits ({NUM_ROWS} a seed). A rejected draft goes back with the "
        "verifier's reasons (`reasons`), or the first conversation is asked again with another "
        f"seed (`blind`); at most {ROUNDS} drafts a row, {MAX_TOKENS} tokens each, temperature "
        f"{TEMPERATURE:g}. The first draft is asked for by the same conversation "
        "and seed both ways (in bfloat16 it may differ with what is decoded beside it). "
        "Tables show the share of rows whose solution was accepted.",
    ]
    if not cells:
        lines += ["", "No cell has been run: nothing is claimed."]
    for name in sorted({cell["teacher"] for cell in cells}):
        lines += _teacher(name, [cell for cell in cells if cell["teacher"] == name])
    return "\n".join(lines) + "\n"


def _teacher(name: str, cells: list[dict[str, Any]]) -> list[str]:
    by_key = {(cell["arm"], cell["seed"]): cell for cell in cells}
    seeds = [s for s in SEEDS if all((arm, s) in by_key for arm in ARMS)]
    rounds = range(1, ROUNDS + 1)
    heads = " | ".join(f"{n} draft{'s' if n > 1 else ''}" for n in rounds)
    shown = cells[0]["settings"]["num_examples"]
    lines = [
        "",
        f"## {name}",
        "",
        f"Three of {shown} solved examples are shown." if shown else "No example is shown.",
        "",
        f"| way | seed | {heads} | drafts | dropped | prompt tokens | sampled |",
    ]
    lines += ["|---" * (6 + ROUNDS) + "|"]
    for (arm, seed), cell in sorted(by_key.items()):
        shares = " | ".join(f"{share(cell, n):.3f}" for n in rounds)
        told = cell["summary"]
        lines.append(
            f"| {arm} | {seed} | {shares} | {told['drafts']} | {told['dropped']} "
            f"| {told['prompt_tokens']} | {told['completion_tokens']} |"
        )
    missing = [f"{arm}/{s}" for s in SEEDS for arm in ARMS if (arm, s) not in by_key]
    lines += ["", f"Missing cells: {', '.join(missing) if missing else 'none'}."]
    commits = ", ".join(sorted({f"{cell['commit']} ({cell['date']})" for cell in cells}))
    lines += [f"Commit: {commits}. Weights: SHA-256 {cells[0]['weights_sha256'][:16]}."]
    return lines + (_verdict(by_key, seeds) if seeds else [])


def _verdict(by_key: dict[tuple[str, int], dict[str, Any]], seeds: list[int]) -> list[str]:
    pairs = [
        (at is not None, by_key["blind", seed]["accepted_at"][row] is not None)
        for seed in seeds
        for row, at in by_key["reasons", seed]["accepted_at"].items()
    ]
    mean, low, high = paired(pairs)
    cost = {arm: sum(_tokens(by_key[arm, seed]) for seed in seeds) for arm in ARMS}
    told = "with reasons more is accepted" if low > 0 else "blind retry gets more accepted"
    if low <= 0 <= high:
        cheaper = min(ARMS, key=lambda arm: cost[arm])
        told = f"no difference is seen; `{cheaper}` took fewer tokens"
        if not any(one or other for one, other in pairs):
            told = "nothing was accepted either way, which says nothing of either"
    return [
        "",
        f"reasons - blind after {ROUNDS} drafts: {mean:+.3f} ({low:+.3f} to {high:+.3f}, 95%, "
        f"{len(pairs)} pairs of rows, seeds {', '.join(map(str, seeds))}): {told} "
        f"(reasons {cost['reasons']}, blind {cost['blind']}, prompt and sampled together).",
    ]


def _tokens(cell: dict[str, Any]) -> int:
    return cell["summary"]["prompt_tokens"] + cell["summary"]["completion_tokens"]


def run(model: Path, name: str, seeds: list[int], results: Path, num_examples: int) -> None:
    """Run the cells of a teacher that are missing. Raises ValueError beside cells of others."""
    from benchmarks.learning.cells import weights_hash  # loads torch, which the page does not need

    facts = {"teacher": name, "weights_sha256": weights_hash(model)}
    wanted = []
    for seed in seeds:
        for arm in ARMS:
            cell = results / name / f"{arm}-{seed}.json"
            if not cell.exists():
                wanted.append((cell, arm, seed))
                continue
            kept = json.loads(cell.read_text("utf-8"))
            for field, value in (facts | {"settings": settings(num_examples)}).items():
                if kept[field] != value:
                    raise ValueError(
                        f"{cell} has {field} {kept[field]}, this run {value}: give another --name, "
                        "or remove the cell to have it run again"
                    )
    if not wanted:
        return
    import ray

    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # no token file in the home
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    spec = EngineTeacherSpec(
        model=name,
        temperature=TEMPERATURE,
        max_tokens=MAX_TOKENS,
        concurrency=NUM_ROWS,
        dtype="bfloat16",
        max_model_len=1024,
        num_threads=2,
    )
    try:
        with engine_teacher(spec, str(model)) as teacher:
            for cell, arm, seed in wanted:
                run_cell(teacher, cell, arm, seed, num_examples, facts)
                print(f"{cell}: done", flush=True)
    finally:
        ray.shutdown()


def main() -> None:
    """Run what is missing, or write the page."""
    parser = argparse.ArgumentParser(description="Repair with reasons against blind retry.")
    parser.add_argument("--model", type=Path, help="folder of the teacher's model")
    parser.add_argument("--name", default="SmolLM2-135M-Instruct", help="what the page calls it")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--examples", type=int, default=NUM_EXAMPLES, help="solved ones to show")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", type=Path, help="write the page here")
    args = parser.parse_args()
    if args.model is not None:
        run(args.model, args.name, args.seeds, args.results, args.examples)
    if args.report is not None:
        args.report.write_text(render(args.results), encoding="utf-8")


if __name__ == "__main__":
    main()
