"""The benchmark's task: digit programs with an operation that the experts never show.

As in the quickstart a problem is a 4-digit state and 5 or 6 numbered program lines of two
operations. Two things differ. The base runs the `HABITS` operations wrongly more often than not: it
forgets the last digit. And under `few_experts` no expert solution holds the operation `UNSEEN`, so
that imitation can teach the plan, but not that operation. Half of all problems do without it.

A policy that plans rightly and has the bad habit still gets the operation right by chance now and
then: what RLVR can learn from, once the plan is there.
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "examples" / "quickstart"), str(ROOT / "models")]
import generate as quickstart  # noqa: E402

from train.experts import digit_programs  # noqa: E402

UNSEEN = "i"  # add one to each digit
HABITS = ("i", "c")
RIGHT_SHARE = 0.3  # how often the base's documents run an operation of HABITS rightly
WITHOUT_UNSEEN_SHARE = 0.5


@dataclass(frozen=True)
class Regime:
    """How much is known of the problems."""

    name: str
    num_experts: int  # rows with expert steps
    num_answers: int  # rows with the answer only
    experts_show_all: bool  # False: no expert's problem holds UNSEEN


REGIMES = {
    "few_experts": Regime("few_experts", 32, 2000, experts_show_all=False),
    "many_experts": Regime("many_experts", 256, 0, experts_show_all=True),
}
NUM_VALID, NUM_HELDOUT = 100, 300


def forgetful(operation: str, state: str) -> str:
    """The operation, but for the last digit, which stays as it was."""
    return digit_programs.apply_op(operation, state)[:-1] + state[-1]


def careless_step(rng: random.Random, line: str, state: str) -> tuple[str, str, str]:
    """Return (thought, step, state after it) of one line, run by the base's habits."""
    states = [state]
    for operation in line[1:]:
        careless = operation in HABITS and rng.random() >= RIGHT_SHARE
        run = forgetful if careless else digit_programs.apply_op
        states.append(run(operation, states[-1]))
    return f"{line[0]}:{states[1]}", f"{line}={states[2]}", states[2]


def sample_document(rng: random.Random) -> tuple[str, str]:
    """Return (context, target) of one document of the base: careless, and sloppy when hard."""
    import recipe

    easy = rng.random() < recipe.EASY_SHARE
    num_lines = rng.choice((1, 2)) if easy else rng.randint(3, 6)
    problem = quickstart.sample_problem(rng, num_lines)
    state, lines = digit_programs.parse(problem)
    walk = range(num_lines) if easy else recipe.sloppy_walk(rng, num_lines)
    steps, thoughts = [], []
    for position in walk:
        thought, step, state = careless_step(rng, lines[position], state)
        thoughts.append(thought)
        steps.append(step)
    return recipe.write_document(rng, problem, steps, thoughts)


def has_unseen(problem: str) -> bool:
    """True when a line of the problem holds the operation UNSEEN."""
    return UNSEEN in problem


def sample_problem(rng: random.Random, *, without_unseen: bool) -> str:
    """Draw a hard problem without a shortcut."""
    while True:
        problem = quickstart.sample_problem(rng, rng.choice(quickstart.HARD_LINES))
        if without_unseen and has_unseen(problem):
            continue
        if not quickstart.has_shortcut(problem):
            return problem


def generate(
    regime: Regime, seed: int, num_valid: int = NUM_VALID, num_heldout: int = NUM_HELDOUT
) -> dict[str, list[dict[str, object]]]:
    """Return the rows of train, valid and heldout, disjoint. The same seed gives the same rows."""
    rng = random.Random(seed)
    taken: set[str] = set()

    def take(count: int, *, expert: bool = False) -> list[dict[str, object]]:
        rows = []
        while len(rows) < count:
            without = rng.random() < WITHOUT_UNSEEN_SHARE
            without = without or (expert and not regime.experts_show_all)
            problem = sample_problem(rng, without_unseen=without)
            if problem not in taken:
                taken.add(problem)
                rows.append(quickstart.make_row(problem, expert=expert))
        return rows

    # Held-out and validation rows first: they are the same in every regime.
    heldout, valid = take(num_heldout), take(num_valid)
    train = take(regime.num_experts, expert=True) + take(regime.num_answers)
    return {"train": train, "valid": valid, "heldout": heldout}
