"""Verdicts per second of each verifier on 1 and on 2 processes: medians, and their ratio.

A process stands for one verifier actor of a job. Verifiers with killable child processes start
those besides, so on two cores their ratio shows contention, not the code's limit.
"""

import multiprocessing
import statistics
import time

from rollout.types import Problem, Rollout, Turn
from rollout.verifiers.registry import parse_grader

RUNS = 5
BATCH_S = 1.0  # one measurement lasts about this long
OUT, REF = "{{ sample.output_text }}", "{{ item.ref }}"
TEXT = "The train leaves at nine and reaches the coast two hours later, on most days of the week."
SIMILARITY = {"type": "text_similarity", "input": OUT, "reference": REF}
CASES: dict[str, tuple[dict, str, str]] = {  # grader, sample, reference
    "answer": ({"type": "answer"}, "so\n42", "42"),
    "string_check": (
        {"type": "string_check", "input": OUT, "reference": REF, "operation": "ilike"},
        TEXT,
        "the coast",
    ),
    "fuzzy_match": ({**SIMILARITY, "evaluation_metric": "fuzzy_match"}, TEXT, TEXT[5:]),
    "bleu": ({**SIMILARITY, "evaluation_metric": "bleu"}, TEXT, TEXT[5:]),
    "rouge_l": ({**SIMILARITY, "evaluation_metric": "rouge_l"}, TEXT, TEXT[5:]),
    "json_schema": (
        {"type": "json_schema", "json_schema": {"required": ["answer"]}},
        '{"answer": 42}',
        "",
    ),
    "math, equal text": ({"type": "math"}, r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    "math, fraction": ({"type": "math"}, r"\boxed{0.5}", r"\frac{1}{2}"),
    "math, algebra": ({"type": "math"}, r"\boxed{(x+1)^2}", "x^2+2x+1"),
    "multi of two": (
        {
            "type": "multi",
            "graders": {
                "a": {"type": "string_check", "input": OUT, "reference": REF, "operation": "eq"},
                "b": {"type": "answer"},
            },
            "calculate_output": "0.5 * a + 0.5 * b",
        },
        "42",
        "42",
    ),
}


def work(name: str, start, results) -> None:
    """Score for RUNS batches; put verdicts per second for each."""
    raw, sample, reference = CASES[name]
    grader = parse_grader(raw)
    problem = Problem("p", "", reference_answer=reference, item={"ref": reference})
    rollout = Rollout("p", (Turn((), (), (), sample, "end", ()),))
    for _ in range(3):  # start child processes, fill caches
        grader.verify(problem, rollout)
    for _ in range(RUNS):
        start.wait()
        count, started_s = 0, time.perf_counter()
        while time.perf_counter() - started_s < BATCH_S:
            grader.verify(problem, rollout)
            count += 1
        results.put(count / (time.perf_counter() - started_s))


def verdicts_per_s(name: str, num_processes: int) -> float:
    """Median over the runs of the sum over processes."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(num_processes), context.Queue()
    processes = [
        context.Process(target=work, args=(name, start, results)) for _ in range(num_processes)
    ]
    for process in processes:
        process.start()
    rates = [[results.get(timeout=300) for _ in processes] for _ in range(RUNS)]
    for process in processes:
        process.join()
    return statistics.median(sum(rate) for rate in rates)


def main() -> None:
    """Print one line per verifier."""
    for name in CASES:
        one, two = verdicts_per_s(name, 1), verdicts_per_s(name, 2)
        print(f"{name}: {one:,.0f} verdicts/s on 1 process; 2 / 1 = {two / one:.2f}", flush=True)


if __name__ == "__main__":
    main()
