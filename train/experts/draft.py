"""From a teacher's text to a solution: numbered steps, then the answer on a line of its own. Pure.

Steps are whatever `train.step_parser` reads; text before the first one, and hidden reasoning, are
no steps. Arithmetic that a step states as an equation is checked: a teacher that reaches the right
answer by a wrong line teaches the wrong line.
"""

import re

from rollout.steps import THINK_CLOSE, THINK_OPEN, visible_text
from train.data import Row
from train.experts.families import Solution
from train.step_parser import parse_steps

MAX_STEP_CHARS = 4000
FAMILY = "teacher"
# "Answer: 7", "**Final answer:** 7"; and, where no line has that form, "The answer is 7".
_ANSWER = re.compile(r"\W*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?[\s*_`]*[:=](.*)", re.I)
_ANSWER_IS = re.compile(r"\W*(?:the\s+)?(?:final\s+)?answer\s+is\s(.*)", re.I)
_NUMBER = r"-?\d{1,15}"
# "12 + 45 - 7 = 50", standing alone on its line or after a colon.
_EQUATION = re.compile(
    rf"(?:^|:\s+)({_NUMBER}(?:\s*[-+*\u00d7]\s*{_NUMBER})+)\s*=\s*({_NUMBER})\.?$", re.M
)
FORM = (
    "Solve the problem in numbered steps, each on a line of its own: `1. **Title**: text`, "
    "`2. **Title**: text`, and so on. After the last step write one more line: `Answer: ` and the "
    "final answer alone."
)


class DraftError(ValueError):
    """The text is no solution in the form that was asked for; the message says what to mend."""


def read_draft(text: str) -> Solution:
    """Return the solution that a text holds. Raises DraftError."""
    lines = visible_text(text).strip().splitlines()
    found, written = _last_answer(lines)
    answer = _bare(written)
    if not answer:
        raise DraftError("the line `Answer:` holds no answer")
    try:
        parsed = parse_steps("\n".join(lines[:found]))
    except ValueError as error:
        raise DraftError(f"the text {error}") from None
    steps = tuple(step.full for step in parsed)
    for number, step in enumerate(steps, start=1):
        if fault := step_fault(step):
            raise DraftError(f"step {number} {fault}")
    return Solution(FAMILY, steps, answer)


def _last_answer(lines: list[str]) -> tuple[int, str]:
    """(the line's number, what stands after its mark). Raises DraftError when there is none."""
    for form in (_ANSWER, _ANSWER_IS):
        for number in range(len(lines) - 1, -1, -1):
            if match := form.fullmatch(lines[number].strip()):
                return number, match[1]
    raise DraftError("there is no line `Answer: ...` after the steps")


def step_fault(step: str) -> str | None:
    """What is wrong with one step, or None."""
    if len(step) > MAX_STEP_CHARS:
        return f"has {len(step)} characters; write at most {MAX_STEP_CHARS}"
    if THINK_OPEN in step or THINK_CLOSE in step:
        return "holds a think tag"
    for left, right in _EQUATION.findall(step):
        if _value(left) != int(right):
            # The value is not named: it may be the reference answer.
            return f"says {left.strip()} = {right}, which is false"
    return None


def ends_with_answer(solution: Solution) -> Solution:
    """The same solution with its answer as one more step, as graders of the last turn read it."""
    return Solution(solution.family, (*solution.steps, solution.answer), solution.answer)


def ask(row: Row, passages: list[str]) -> list[dict[str, str]]:
    """The conversation that asks for a solution of a row.

    The row's own system message goes on in ours: many chat templates refuse a second one.
    """
    system, messages = FORM, [{**m} for m in row.messages]
    if passages:
        system += "\n\nWhat may help:\n\n" + "\n\n".join(passages)
    if messages[0]["role"] == "system":
        system += "\n\n" + messages.pop(0)["content"]
    return [{"role": "system", "content": system}, *messages]


def ask_again(messages: list[dict[str, str]], text: str, reasons: str) -> list[dict[str, str]]:
    """The conversation that sends a draft back with what is wrong with it."""
    return [
        *messages,
        {"role": "assistant", "content": text},
        {
            "role": "user",
            "content": f"This was rejected: {reasons}.\n\nWrite the whole solution again, mended. "
            + FORM,
        },
    ]


def _bare(answer: str) -> str:
    """Without the marks that chat models put around an answer."""
    answer = answer.strip().strip("*`$ ")
    if boxed := re.fullmatch(r"\\boxed\{(.*)\}", answer):
        answer = boxed[1].strip()
    return answer.rstrip(".") if re.fullmatch(r"-?\d+\.", answer) else answer


def _value(expression: str) -> int:
    """The value of whole numbers joined by + - and *, products first."""
    total, product = 0, 1
    parts = re.findall(r"([-+*\u00d7]?)\s*(-?\d+)", expression)
    for place, (operator, digits) in enumerate(parts):
        if operator in ("*", "\u00d7"):
            product *= int(digits)
            continue
        if place:
            total += product
        product = -int(digits) if operator == "-" else int(digits)
    return total + product
