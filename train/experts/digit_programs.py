"""Digit programs: how a problem such as `9037:1sr,2li` is solved, one line at a time.

A problem is a 4-digit state and a program. Every program line is its number and two primitive
operations (`OPERATIONS`), applied from left to right. The expert solves one line per step, and
writes the line, `=` and the state after it: `1sr=7390`. The hidden working of a step is the
line's number and the state between the two operations: `1:0937`. Standard library only.
"""

from collections.abc import Callable
from itertools import permutations

OPERATIONS: dict[str, Callable[[str], str]] = {
    "r": lambda s: s[::-1],  # reverse
    "l": lambda s: s[1:] + s[0],  # rotate left
    "e": lambda s: s[-1] + s[1:-1] + s[0],  # swap the ends
    "s": lambda s: s[1] + s[0] + s[2:],  # swap the first two
    "i": lambda s: "".join(str((int(d) + 1) % 10) for d in s),  # add one to each digit, mod 10
    "c": lambda s: "".join(str(9 - int(d)) for d in s),  # 9-complement of each digit
}
# Two different operations: a doubled one is mostly the identity, a step that could be skipped.
LINE_OPERATIONS = ["".join(pair) for pair in permutations(OPERATIONS, 2)]


def apply_op(op: str, state: str) -> str:
    """Return the state after one primitive operation. Raises ValueError for an unknown one."""
    if op not in OPERATIONS:
        raise ValueError(f"unknown operation {op!r}: choose from {', '.join(OPERATIONS)}")
    return OPERATIONS[op](state)


def run_line(line: str, state: str) -> tuple[str, str]:
    """Return (state after the line's first operation, state after its second)."""
    _, first, second = line
    middle = apply_op(first, state)
    return middle, apply_op(second, middle)


def parse(problem: str) -> tuple[str, list[str]]:
    """Split `9037:1sr,2li` into the start state and the program lines."""
    state, program = problem.split(":")
    return state, program.split(",")


def solve(problem: str) -> tuple[list[str], list[str], str]:
    """Return the expert's steps, its thoughts (one per step) and the final answer."""
    state, lines = parse(problem)
    steps, thoughts = [], []
    for line in lines:
        thought, step, state = write_step(line, state)
        thoughts.append(thought)
        steps.append(step)
    return steps, thoughts, state


def write_step(line: str, state: str) -> tuple[str, str, str]:
    """Return (thought, step, state after it) for one program line."""
    middle, after = run_line(line, state)
    return f"{line[0]}:{middle}", f"{line}={after}", after
