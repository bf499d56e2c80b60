"""The form of a step: one think block, then the step.

SRL's format check, the stepwise protocol and the answer verifier all read samples through this
module, so that what is trained, evaluated and served has one form.
"""

import re

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_TAG = re.compile(f"({THINK_OPEN}|{THINK_CLOSE})")
_STEP = re.compile(r"\s*<think>(?P<think>.*?)</think>(?P<step>.*)", re.DOTALL)


def parse_step(text: str) -> str | None:
    """Return the step after the think block, or None when the form is wrong.

    The form is right when exactly one think block opens the text and a non-empty step follows
    (arXiv 2510.25992, section 3: the monologue is never scored).
    """
    match = _STEP.fullmatch(text)
    if match is None or text.count(THINK_OPEN) != 1 or text.count(THINK_CLOSE) != 1:
        return None
    return match["step"].strip() or None


def visible_text(text: str) -> str:
    """Return `text` without its think blocks; an unclosed block hides the rest."""
    # One pass: a pattern with "block" in it takes quadratic time on many opening tags.
    shown, thinking = [], False
    for part in _TAG.split(text):
        if part == THINK_OPEN:
            thinking = True
        elif part == THINK_CLOSE and thinking:
            thinking = False
        elif not thinking:
            shown.append(part)
    return "".join(shown).split(THINK_OPEN)[0].strip()
