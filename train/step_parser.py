"""Numbered, titled steps in one text: the form in which experts' solutions are usually written.

    1. **Set up**: Let x be it.      ### Step 1: Set up      Step 1: Let x be it.
    2. **Solve**: Then 2x = 6.       Let x be it.            Step 2: Then 2x = 6.

Steps are marked at the beginning of a line, all in one style, and numbered from 1 without gaps.
Text before the first one introduces the solution and is no step; lists inside a step, of another
style or indented, belong to it. What could be read in two ways is refused. Pure; the data reader
calls it for an `expert_steps` that is one string.
"""

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"(?P<hashes>#{1,6}\s+)?(?P<bold>\*\*)?(?P<word>[Ss]tep\s+)?(?P<number>\d{1,3})"
    r"(?P<mark>[.):]|\s*[-\u2013\u2014](?=\s))?(?P<rest>.*)"
)
# Bold text is a title when a colon or the line's end follows: "**Note** that x" is a sentence.
_BOLD_TITLE = re.compile(r"\*\*(?P<title>[^*]+?)\s*(?::\*\*|\*\*\s*(?::|$))\s*(?P<text>.*)")
_FENCE = re.compile(r"\s*(```|~~~)")
MAX_QUOTED = 60  # characters of the text in a complaint
FORM = "number every step from 1, such as '1. **Title**: text', or write a list of strings"


@dataclass(frozen=True, slots=True)
class ParsedStep:
    """One step of a solution."""

    title: str | None  # None: the step has none
    text: str  # without number and title; lines, none of them empty

    @property
    def full(self) -> str:
        """The step as it stands in a context: "Title: text"."""
        return f"{self.title}: {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class _Marker:
    line: int  # from 0
    style: str
    number: int
    rest: str  # of its line


def parse_steps(text: str) -> tuple[ParsedStep, ...]:
    """Split a solution into its steps. Raises ValueError with the text's line and the fix."""
    lines = text.split("\n")
    markers = _markers(lines)
    first = next((m for m in _by_rank(markers) if m.number == 1), None)
    if first is None:
        raise ValueError(f"has no numbered steps (it begins {_quote(text)}); {FORM}")
    ours = [m for m in markers if m.style == first.style and m.line >= first.line]
    _check_numbers(ours)
    _check_other_styles(markers, ours)
    ends = [m.line for m in ours[1:]] + [len(lines)]
    return tuple(
        _step(marker, lines[marker.line + 1 : end]) for marker, end in zip(ours, ends, strict=True)
    )


def split_title(step: str) -> tuple[str | None, str]:
    """Split "Title: text" into title and text; an untitled step has the title None."""
    title, _, body = step.partition(": ")
    return (title, body) if body else (None, step)


def _markers(lines: list[str]) -> list[_Marker]:
    """Every line that may begin a step, code blocks left out."""
    markers, fenced = [], False
    for number, line in enumerate(lines):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and (marker := _marker(number, line)):
            markers.append(marker)
    return markers


def _marker(number: int, line: str) -> _Marker | None:
    match = _LINE.fullmatch(line.rstrip())
    if match is None:  # an indented line belongs to the step above it
        return None
    rest, word = match["rest"], match["word"]
    if match["mark"] is None and not (word and not rest):  # "Step 3" alone; not "3 apples"
        return None
    if rest and not rest[0].isspace() and not rest.startswith("*"):  # "3.14" begins no step
        return None
    if match["mark"] == ":" and not word:  # "3: 4" is a ratio
        return None
    if match["bold"]:  # of the number alone ("**1.** text"), or of number and title
        rest = rest[2:] if rest.startswith("**") else f"**{rest.strip()}"
    style = "bold" if match["bold"] else "step" if word else "number"
    style = "heading" if match["hashes"] else style
    if style == "heading":
        style += str(len(match["hashes"].strip()))
    return _Marker(number, style, int(match["number"]), rest.strip())


def _by_rank(markers: list[_Marker]) -> list[_Marker]:
    """Outer styles first: headings hold lists, not the reverse."""
    rank = {"heading": 0, "bold": 1, "step": 2, "number": 3}
    return sorted(markers, key=lambda m: (rank[m.style.rstrip("123456")], m.style, m.line))


def _check_numbers(ours: list[_Marker]) -> None:
    for expected, marker in enumerate(ours, start=1):
        if marker.number != expected:
            raise ValueError(
                f"line {marker.line + 1} of its text: step {marker.number} follows step "
                f"{expected - 1}; {FORM} (indent a list inside a step)"
            )


def _check_other_styles(markers: list[_Marker], ours: list[_Marker]) -> None:
    """Refuse a line that would go on with our numbers, or begin them, only in another style."""
    begun: set[str] = set()  # other styles that began a list of their own inside this step
    step = 0
    for marker in markers:
        if marker in ours:
            step, begun = marker.number, set()
        elif marker.number == 1 and step:
            begun.add(marker.style)
        elif marker.number == step + 1 and marker.style not in begun:
            raise ValueError(
                f"line {marker.line + 1} of its text: {_quote(marker.rest)} may be step "
                f"{marker.number}, but is not written like step 1; write all steps in one style "
                "(indent a list inside a step)"
            )


def _step(marker: _Marker, lines: list[str]) -> ParsedStep:
    below = [line.rstrip() for line in lines if line.strip()]
    title, text = None, marker.rest
    if bold := _BOLD_TITLE.fullmatch(marker.rest):
        title, text = bold["title"].strip(), bold["text"].strip()
    elif marker.style.startswith("heading"):
        title, text = marker.rest.strip("* :") or None, ""
    text = "\n".join([text, *below] if text else below).strip()
    if not text:
        raise ValueError(
            f"line {marker.line + 1} of its text: step {marker.number} has a title and no text; "
            "write the step, or leave its number out"
        )
    return ParsedStep(title, text)


def _quote(text: str) -> str:
    line = text.strip().split("\n")[0]
    return repr(line if len(line) <= MAX_QUOTED else line[:MAX_QUOTED] + "...")
