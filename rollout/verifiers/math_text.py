"""From a solution's text to the structure of its answer: brackets, lists, relations, units.

Text only: nothing is evaluated here and no algebra is imported. `extract_answer` finds where a
solution states its answer, `parse_answer` splits that into a `Node`, whose leaves are LaTeX that
`math_equal` compares. Brackets and order are kept, since "(0,1]" is not "[0,1)" and "(1,2)" is not
"(2,1)"; what is prose, not mathematics, becomes a word, which equals only the same words.
"""

import re
from dataclasses import dataclass
from typing import Literal

from rollout.verifiers.math_units import TEXT, split_unit

Kind = Literal["scalar", "word", "group", "set", "list", "union", "matrix", "relation", "quantity"]

_ANCHOR = re.compile(r"\banswer\b[*_]*\s*(?:is\b|:|=)[\s:*_]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.[)*_]*(?=\s+[A-Z]|\s*$)")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
# What people type instead of LaTeX.
# ruff: noqa: RUF001
_UNICODE = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ",
    "∪": r"\cup ", "∈": r"\in ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "°": r"^\circ ",
    "²": "^2", "³": "^3", "∅": r"\emptyset ", "±": r"\pm ", "√": r"\sqrt ", "’": "'",
}  # fmt: skip
_REPLACEMENTS = [
    (r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
    (r"(?<!\\)\\[,!]", ""),
    (r"(?<!\\)\\[;: ]|~|\\q?quad(?![a-zA-Z])", " "),
    (r"\{,\}", ","),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\(?:leqslant|leq)(?![a-zA-Z])|<=", r"\\le "),
    (r"\\(?:geqslant|geq)(?![a-zA-Z])|>=", r"\\ge "),
    (r"\\neq(?![a-zA-Z])|!=", r"\\ne "),
    (r"\\lt(?![a-zA-Z])", "<"),
    (r"\\gt(?![a-zA-Z])", ">"),
    (r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset"),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\(?:mathbf|boldsymbol|mathit|bf)\s*\{([^{}]*)\}", r"\1"),
    (r"\\(?:mathrm|operatorname)\s*\{([a-zA-Z]{3,}|[ei])\}", r"\1"),
    (r"\\(?:text|textbf|textit|textrm|mbox|mathrm)\s*\{([^{}]*)\}", "\x01\\1\x02"),
    (r"\x01([^\x01\x02a-zA-Z%]*)\x02", r"\1"),
    (r"\*\*", "^"),
    (r"(?<![a-zA-Z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
    (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
    (r"\\sqrt\s*(\d)", r"\\sqrt{\1}"),
    (r"(?<![a-zA-Z\\])(pi|sin|cos|tan|log|ln|exp)(?![a-zA-Z])", r"\\\1 "),
    (r"(?<![a-zA-Z\\])infinity(?![a-zA-Z])", r"\\infty "),
    (r"\+\s*\\infty", r"\\infty"),
    (r"\s+", " "),
]
_COMPILED = [(re.compile(pattern), new) for pattern, new in _REPLACEMENTS]
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_RELATION = re.compile(r"\\(?:le|ge|ne|in)(?![a-zA-Z])|[=<>]")
_AND_OR = re.compile(r"\x01?\s*,?\s*(?<![a-zA-Z\\])(and|or)(?![a-zA-Z])\s*\x02?")
_MATRIX = re.compile(
    r"\(?\s*\\begin\{([pbB]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}\s*\)?", re.DOTALL
)
_NAME = re.compile(
    r"(?:\\[a-zA-Z]+|[a-zA-Z])(?:_\{?\w+\}?)?(?:\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\))?"
)
_PROSE = re.compile(r"(?<![\\a-zA-Z])(?<!\\begin\{)(?<!\\end\{)[a-zA-Z]{3,}")
_TOWER = re.compile(r"\^\s*\{?[^{}^+*/=,]*\^\s*\{?[^{}^+*/=,]*\^|\^\s*\{?-?\d{6,}|\d{4,}\s*!|!\s*!")
_SPACED_DIGITS = re.compile(r"(?<![_\d])\d+\s+\d")  # "4 2" is neither 42 nor 8
MAX_DEPTH = 40


class UnreadableError(ValueError):
    """The text is no answer that can be compared."""


@dataclass(frozen=True, slots=True)
class Node:
    """One answer. `text` is its normalised text, by which equal writings are recognised."""

    kind: Kind
    text: str  # a scalar's LaTeX
    items: tuple["Node", ...] = ()  # row by row for a matrix
    marks: tuple[str, ...] = ()  # brackets, operators, "or"/"and", a unit, or a matrix's shape


def extract_answer(solution: str, *, boxed_only: bool = False) -> str | None:
    """Return the text of the answer that a solution ends with, or None.

    The last box counts; without one what follows the last "answer is" or "Answer:", up to the
    sentence's end; without that the whole last line. Nothing is picked out of prose.
    """
    boxes = list(_BOX.finditer(solution))
    if boxes:
        return _balanced(solution, boxes[-1].end())
    if boxed_only:
        return None
    anchors = list(_ANCHOR.finditer(solution))
    rest = solution[anchors[-1].end() :] if anchors else solution
    lines = [line.strip() for line in rest.splitlines() if line.strip()]
    if not lines:
        return None
    if not anchors:
        return lines[-1]
    end = _SENTENCE_END.search(lines[0])
    return lines[0][: end.start()] if end else lines[0]


def _balanced(text: str, start: int) -> str | None:
    """The text from `start` to the brace that closes what was opened before it."""
    depth = 1
    for position in range(start, len(text)):
        if text[position] in "{}" and text[position - 1] != "\\":
            depth += 1 if text[position] == "{" else -1
            if depth == 0:
                return text[start:position].strip() or None
    return None


def is_tower(text: str) -> bool:
    """True for powers of powers and factorials that are known to take for ever."""
    return bool(_TOWER.search(text))


def clean(text: str) -> str:
    """Normalise how LaTeX is written; text blocks are put between TEXT's two marks."""
    for character, latex in _UNICODE.items():
        text = text.replace(character, latex)
    text = _without_dollars(text.strip().strip("*"))
    for pattern, new in _COMPILED:
        text = pattern.sub(new, text)
    text = text.strip().rstrip(".,;:").strip()
    if not re.search(r"[(\[]|\\\{", text):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return text


def _without_dollars(text: str) -> str:
    """Drop math delimiters; a single "$" before a number is a currency."""
    text = re.sub(r"(?<!\\)\\[()\[\]]", "", text)
    text = re.sub(r"(?<!\\)\$\$", "", text)
    if len(re.findall(r"(?<!\\)\$", text)) % 2 == 0:
        return re.sub(r"(?<!\\)\$", "", text)
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def parse_answer(text: str) -> Node:
    """Return the structure of an answer's text. Raises UnreadableError."""
    cleaned = clean(text)
    if not re.search(r"[a-zA-Z0-9]", cleaned):
        raise UnreadableError(f"{text[:80]!r} holds no answer")
    return _parse(cleaned, MAX_DEPTH)


def _parse(text: str, depth: int) -> Node:
    text = text.strip()
    if not text or depth == 0:
        raise UnreadableError("a part is empty" if depth else "nested too deep")
    for rule in (_matrix, _union, _list, _plus_minus, _relation, _brackets, _quantity):
        if node := rule(text, depth - 1):
            return node
    return _leaf(text)


def split_top(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split where `separator` occurs outside all brackets; return the parts and the separators."""
    parts, found, depth, start, position = [], [], 0, 0, 0
    while position < len(text):
        match = separator.match(text, position) if depth == 0 else None
        if match and match.end() > position:
            parts.append(text[start:position])
            found.append(match[0])
            start = position = match.end()
            continue
        if text[position] in "([{":
            depth += 1
        elif text[position] in ")]}":
            depth -= 1
        position += 1
    return [*parts, text[start:]], found


def _matrix(text: str, depth: int) -> Node | None:
    match = _MATRIX.fullmatch(text)
    if not match or r"\begin" in match[2]:
        return None
    rows = [row.split("&") for row in re.split(r"\\\\", match[2]) if row.strip()]
    if not rows or len({len(row) for row in rows}) != 1:
        raise UnreadableError("a matrix whose rows differ in length")
    cells = tuple(_parse(cell, depth) for row in rows for cell in row)
    return Node("matrix", text, cells, (f"{len(rows)}x{len(rows[0])}",))


def _union(text: str, depth: int) -> Node | None:
    parts, _ = split_top(text, re.compile(r"\\cup(?![a-zA-Z])"))
    if len(parts) < 2:
        return None
    return Node("union", text, tuple(_parse(_after_in(part), depth) for part in parts))


def _after_in(text: str) -> str:
    """Drop "x in" before a set."""
    return re.sub(r"^\s*[a-zA-Z]\s*\\in(?![a-zA-Z])", "", text)


def _list(text: str, depth: int) -> Node | None:
    parts, found = split_top(text, re.compile(rf"{_AND_OR.pattern}|[,;]"))
    if len(parts) < 2:
        return None
    words = {word for mark in found for word in re.findall("and|or", mark)}
    kept = [part for part in parts if part.strip()]
    if len(kept) == 1:
        raise UnreadableError("a list with one part")
    return Node("list", text, tuple(_parse(p, depth) for p in kept), tuple(sorted(words)))


def _plus_minus(text: str, depth: int) -> Node | None:
    parts, found = split_top(text, re.compile(r"\\(?:pm|mp)(?![a-zA-Z])"))
    if len(found) != 1:
        return None
    before, after = parts
    signs = (f"{before}+{after}" if before.strip() else after, f"{before}-{after}")
    return Node("list", text, tuple(_parse(sign, depth) for sign in signs))


def _relation(text: str, depth: int) -> Node | None:
    parts, operators = split_top(text, _RELATION)
    if not operators:
        return None
    operators = [operator.strip() for operator in operators]
    if operators == [r"\in"]:
        return _parse(parts[1], depth) if _NAME.fullmatch(parts[0].strip()) else None
    return Node("relation", text, tuple(_parse(p, depth) for p in parts), tuple(operators))


def _brackets(text: str, depth: int) -> Node | None:
    if text == r"\emptyset":
        return Node("set", text)
    braces = text.startswith(r"\{") and text.endswith(r"\}")
    if not braces and not (text[0] in "([" and text[-1] in ")]"):
        return None
    width = 2 if braces else 1
    inner = text[width:-width]
    if _closes_early(inner):
        return None
    parts, _ = split_top(inner, re.compile(r"[,;]"))
    if braces and not inner.strip():
        return Node("set", text)
    if not braces and len(parts) == 1:
        return _parse(inner, depth) if text[0] == "(" and text[-1] == ")" else None
    items = tuple(_parse(part, depth) for part in parts)
    return Node("set", text, items) if braces else Node("group", text, items, (text[0], text[-1]))


def _closes_early(inner: str) -> bool:
    """True when the first bracket is closed before the end, as in "(a)(b)"."""
    depth = 0
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return True
    return depth != 0


def _quantity(text: str, depth: int) -> Node | None:
    split = split_unit(text)
    if split is None:
        return None
    value, unit = split
    return Node("quantity", text, (_parse(value, depth),), (unit,))


def _leaf(text: str) -> Node:
    plain = TEXT.sub(lambda match: match[1], text).strip()
    if TEXT.fullmatch(text) or (_PROSE.search(plain) and not re.search(r"[\\^_+*/]", plain)):
        return Node("word", plain.strip("()").strip().rstrip(".").casefold())
    if _PROSE.search(text) or "\x01" in text or _SPACED_DIGITS.search(text):
        raise UnreadableError(f"{plain[:80]!r} is neither a formula nor plain words")
    return Node("scalar", re.sub(r"\s+", " ", text))


def is_name(node: Node) -> bool:
    """True for a variable or a function of variables, as on the left of an assignment."""
    return node.kind == "scalar" and bool(_NAME.fullmatch(node.text)) and node.text != r"\infty"
