"""The benchmark's task: digit programs of three lines, in four kinds.

The student runs the operations of `HABITS` wrongly more often than not (it forgets the last digit),
one of them more often than the other; the teacher runs all rightly, as far as it has learnt. A kind
says which of the two operations a problem holds; it is the row's `skill`. Every document is in the
form that a teacher is asked for: numbered steps, each with the state between its two operations,
then the answer.
"""

import random
import sys
from pathlib import Path

from train.data import Row
from train.experts import digit_programs

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "examples" / "quickstart"), str(ROOT / "models")]
import generate as quickstart  # noqa: E402

NUM_LINES = 3
HABITS = {"i": 0.3, "c": 0.6}  # how often the student's documents run the operation rightly
KINDS = ("neither", "only c", "only i", "both")


def kind_of(problem: str) -> str:
    """Which of the habits' operations a problem holds."""
    return {(False, False): "neither", (True, False): "only i", (False, True): "only c"}.get(
        ("i" in problem, "c" in problem), "both"
    )


def document(problem: str, rng: random.Random | None = None) -> str:
    """A solution as text; with `rng` by the student's habits, without it right."""
    state, lines = digit_programs.parse(problem)
    steps = []
    for line in lines:
        states = [state]
        for operation in line[1:]:
            wrong = rng is not None and rng.random() >= HABITS.get(operation, 1.0)
            after = digit_programs.apply_op(operation, states[-1])
            states.append(after[:-1] + states[-1][-1] if wrong else after)
        steps.append(f"{line[1:]} {states[1]} {states[2]}")
        state = states[2]
    return as_text(steps, state)


def as_text(steps: list[str], answer: str) -> str:
    """Numbered steps and the answer, as `train.experts.draft` reads them."""
    numbered = [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([*numbered, f"Answer: {answer}"])


def draw(rng: random.Random) -> str:
    """A problem of any kind."""
    return quickstart.sample_problem(rng, NUM_LINES)


def rows(seed: int, name: str, per_kind: int, taken: set[str]) -> list[Row]:
    """`per_kind` rows of each kind without expert steps, none of whose problems is in `taken`."""
    rng, found = random.Random(seed), dict.fromkeys(KINDS, 0)
    made: list[Row] = []
    while len(made) < per_kind * len(KINDS):
        problem = draw(rng)
        kind = kind_of(problem)
        if found[kind] < per_kind and problem not in taken and not quickstart.has_shortcut(problem):
            found[kind] += 1
            taken.add(problem)
            answer = digit_programs.solve(problem)[2]
            message = {"role": "user", "content": problem}
            item = {"skill": kind, "reference_answer": answer}
            made.append(Row(f"{name}:{len(made) + 1}", (message,), answer, item=item))
    return made
