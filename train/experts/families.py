"""Problem families with a known way to the answer, recognised by the problem's text alone.

A family reads a problem and writes the expert's steps; it says None for a problem that is not its
own. `train.experts.solver` checks what it wrote. Pure; standard library only.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from train.experts import digit_programs

_DIGIT_PROGRAM = re.compile(r"\d{4}:[1-9][a-z]{2}(,[1-9][a-z]{2})*")
_NUMBER = r"-?\d{1,15}"
# reasoning-gym's `chain_sum`, and the same sum written bare. Whole sentences of that library only:
# one that merely resembles them may ask for something else.
_SUM = re.compile(
    r"(?:State the final answer to the following arithmetic problem:)?\s*"
    rf"({_NUMBER}(?:\s*[+-]\s*\d{{1,15}})+)\s*=\s*\??"
)
# reasoning-gym's `gcd`.
_GCD = re.compile(
    r"Find the Greatest Common Divisor \(GCD\) of these numbers: (\d{1,15}(?:, \d{1,15})+)\. "
    r"Give only the GCD as your final answer\."
)


@dataclass(frozen=True)
class Solution:
    """A way to the answer, step by step."""

    family: str
    steps: tuple[str, ...]
    answer: str
    thoughts: tuple[str, ...] = ()  # hidden working, one per step, or none at all


def solve_digit_program(problem: str) -> Solution | None:
    """`9037:1sr,2li`: one program line per step."""
    text = problem.strip()
    if not _DIGIT_PROGRAM.fullmatch(text):
        return None
    _, lines = digit_programs.parse(text)
    numbered = all(line[0] == str(number) for number, line in enumerate(lines, start=1))
    if not numbered or any(
        op not in digit_programs.OPERATIONS for line in lines for op in line[1:]
    ):
        return None
    steps, thoughts, answer = digit_programs.solve(text)
    return Solution("digit_programs", tuple(steps), answer, tuple(thoughts))


def solve_chain_sum(problem: str) -> Solution | None:
    """`4 - 1 - 7 =`: one running total per step, then the answer alone."""
    match = _SUM.fullmatch(problem.strip())
    if match is None:
        return None
    first, *terms = re.findall(rf"^{_NUMBER}|[+-]\s*\d+", match[1])
    total, steps = int(first), []
    for term in terms:
        sign, amount = term[0], int(term[1:])
        after = total + amount if sign == "+" else total - amount
        steps.append(f"{total} {sign} {amount} = {after}")
        total = after
    return Solution("chain_sum", (*steps, str(total)), str(total))


def solve_gcd(problem: str) -> Solution | None:
    """Euclid's algorithm: one division per step, then the answer alone."""
    match = _GCD.fullmatch(problem.strip())
    if match is None:
        return None
    first, *others = (int(number) for number in match[1].split(","))
    steps = []
    for other in others:
        a, b = max(first, other), min(first, other)
        while b:
            steps.append(f"{a} = {a // b} * {b} + {a % b}")
            a, b = b, a % b
        first = a
    return Solution("gcd", (*steps, str(first)), str(first))


FAMILIES: dict[str, Callable[[str], Solution | None]] = {
    "digit_programs": solve_digit_program,
    "chain_sum": solve_chain_sum,
    "gcd": solve_gcd,
}


def solve(problem: str) -> Solution | None:
    """The first family's solution, or None when the problem is of no known family."""
    return next((found for family in FAMILIES.values() if (found := family(problem))), None)
