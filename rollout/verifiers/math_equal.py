"""Are two mathematical answers equal? Runs in a child process, since it can take for ever.

Structure is compared here: brackets, order, units, relations. Leaves are compared by math-verify
(`verify(gold, answer)`, which is not symmetric: the reference always comes first), and its
acceptance has to stand a second look: math-verify rounds, ignores case and takes small numbers
for zero. So decimals enter as exact fractions, and both sides are evaluated to 40 digits.
"""

import logging
import re
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from rollout.verifiers.math_text import Node, UnreadableError, is_name, parse_answer
from rollout.verifiers.math_units import PERCENT, canonical_unit

logging.getLogger("math_verify").setLevel(logging.ERROR)

DIGITS = 40
_ROUNDING = sympy.Float(10) ** -(DIGITS - 10)
# Where expressions with variables are evaluated; both signs, so that |x| is not x.
_POINTS = [sympy.Rational(7, 5), sympy.Rational(-13, 11), sympy.Rational(29, 3)]
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)")
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\overline\s*\{?\s*(\d+)\s*\}?")
_BASE = re.compile(r"\d\s*_")
_DEGREES = re.compile(r"(\d+)\s*\^\s*\{?\s*\\circ\s*\}?")
# Units were split off before; math-verify would drop them, and letters that only look like units.
_READING = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    ),
)
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def compare(argument: Any, mark: Callable[[str], None]) -> dict[str, bool]:
    """Compare {"gold", "answer", "rel_tolerance"}: {"equal", "readable"}.

    Raises UnreadableError when the reference is no answer at all.
    """
    gold = parse_answer(argument["gold"])
    _evaluate(gold)  # takes its time before the mark, where it counts as the reference's
    mark("answer")
    try:
        answer = parse_answer(argument["answer"])
    except (UnreadableError, RecursionError):
        return {"equal": False, "readable": False}
    try:
        equal = equal_nodes(gold, answer, argument["rel_tolerance"])
    except MemoryError:
        raise
    except Exception:
        # Acceptable: what math-verify cannot read, or SymPy cannot compute with (it raises many
        # kinds of errors), equals only what is written the same; the reference was computed above.
        equal = False
    return {"equal": equal, "readable": equal or _is_readable(answer)}


def _evaluate(node: Node) -> None:
    """Give every formula of the reference its value; what cannot be read stays as it is."""
    for item in node.items:
        _evaluate(item)
    if node.kind == "scalar" and _is_readable(node):
        expression = to_sympy(node.text)
        for values in _samples(expression):
            _close(expression.subs(values), expression.subs(values), _ROUNDING)


def _is_readable(node: Node) -> bool:
    """True when math-verify reads every formula in `node`."""
    try:
        return all(map(_is_readable, node.items)) and (
            node.kind != "scalar" or to_sympy(node.text) is not None
        )
    except (UnreadableError, RecursionError):
        return False


def equal_nodes(gold: Node, answer: Node, rel_tolerance: float = 0.0) -> bool:
    """True when `answer` states the same as `gold`."""

    def same(g: Node, a: Node) -> bool:
        return equal_nodes(g, a, rel_tolerance)

    if re.sub(r"\s", "", gold.text) == re.sub(r"\s", "", answer.text):
        return True
    if "quantity" in (gold.kind, answer.kind):
        return _equal_quantities(gold, answer, same)
    if "relation" in (gold.kind, answer.kind):
        return _equal_relations(gold, answer, same)
    gold, answer = _alternatives_as_union(gold), _alternatives_as_union(answer)
    unordered = ("set", "list", "union")
    if gold.kind in unordered and answer.kind in unordered:
        kinds = {gold.kind, answer.kind}
        return ("union" not in kinds or len(kinds) == 1) and _same_members(gold, answer, same)
    if gold.kind != answer.kind:
        return False
    if gold.kind in ("group", "matrix"):
        return gold.marks == answer.marks and _same_items(gold.items, answer.items, same)
    return gold.kind == "scalar" and equal_scalars(gold.text, answer.text, rel_tolerance)


Same = Callable[[Node, Node], bool]


def _same_items(gold: Sequence[Node], answer: Sequence[Node], same: Same) -> bool:
    return len(gold) == len(answer) and all(map(same, gold, answer))


def _same_members(gold: Node, answer: Node, same: Same) -> bool:
    """Equal as sets: order and repetition do not count."""
    if max(len(gold.items), len(answer.items)) > 50:
        raise UnreadableError("a set of more than 50 members")
    # "x > 1 or x < 3" is not "x > 1 and x < 3"
    inequalities = any(item.kind == "relation" and item.marks[0] != "=" for item in gold.items)
    if inequalities and gold.marks != answer.marks:
        return False
    return all(any(same(g, a) for a in answer.items) for g in gold.items) and all(
        any(same(g, a) for g in gold.items) for a in answer.items
    )


def _equal_quantities(gold: Node, answer: Node, same: Same) -> bool:
    gold, answer = _with_letter_unit(gold, answer), _with_letter_unit(answer, gold)
    (value_g, unit_g), (value_a, unit_a) = _value_and_unit(gold), _value_and_unit(answer)
    if unit_g and unit_a:
        return unit_g == unit_a and same(value_g, value_a)
    if PERCENT in (unit_g, unit_a):
        value_g, value_a = _as_share(value_g, unit_g), _as_share(value_a, unit_a)
    return same(value_g, value_a)


def _with_letter_unit(node: Node, other: Node) -> Node:
    """Read "5 m" as a length, not as a product, when the other side is a quantity."""
    match = re.fullmatch(r"(\S+) ([a-zA-Z])", node.text)
    if node.kind != "scalar" or other.kind != "quantity" or match is None:
        return node
    value = Node("scalar", match[1])
    return Node("quantity", node.text, (value,), (canonical_unit(match[2]),))


def _value_and_unit(node: Node) -> tuple[Node, str]:
    return (node.items[0], node.marks[0]) if node.kind == "quantity" else (node, "")


def _as_share(value: Node, unit: str) -> Node:
    """50% is 1/2; 50 is 50."""
    return Node("scalar", rf"\frac{{{value.text}}}{{100}}") if unit == PERCENT else value


def _equal_relations(gold: Node, answer: Node, same: Same) -> bool:
    if gold.kind == answer.kind == "relation":
        if gold.marks == answer.marks == ("=",):
            return _equal_equations(gold, answer, same)
        if "=" in gold.marks + answer.marks:
            return False
        return _equal_inequalities(gold, answer, same)
    relation, other = (gold, answer) if gold.kind == "relation" else (answer, gold)
    if set(relation.marks) == {"="}:
        # "x = 5" for 5; in a chain such as "8 + 9 = 17" every part has to be the answer.
        values = [part for part in relation.items if not is_name(part)]
        pairs = [(v, other) if relation is gold else (other, v) for v in values]
        return bool(values) and all(same(g, a) for g, a in pairs)
    interval = as_interval(relation)
    if interval is None:
        return False
    return same(interval, other) if relation is gold else same(other, interval)


def _equal_equations(gold: Node, answer: Node, same: Same) -> bool:
    for g, a in ((gold.items, answer.items), (gold.items, answer.items[::-1])):
        if _same_items(g, a, same):
            return True
    sides = [part.text for node in (gold, answer) for part in node.items]
    if not all(part.kind == "scalar" for node in (gold, answer) for part in node.items):
        return False
    g_left, g_right, a_left, a_right = (to_sympy(side) for side in sides)
    gold_zero, answer_zero = g_left - g_right, a_left - a_right
    if gold_zero.free_symbols != answer_zero.free_symbols:
        return False
    # The same curve: one side is a constant times the other.
    ratio = sympy.simplify(gold_zero / answer_zero)
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)


def _equal_inequalities(gold: Node, answer: Node, same: Same) -> bool:
    if _variable(gold) == _variable(answer) is not None:
        interval_g, interval_a = as_interval(gold), as_interval(answer)
        if interval_g and interval_a:
            return same(interval_g, interval_a)
    if len(gold.marks) != len(answer.marks):
        return False
    flipped = tuple(_FLIPPED.get(mark, mark) for mark in answer.marks[::-1])
    return (gold.marks == answer.marks and _same_items(gold.items, answer.items, same)) or (
        gold.marks == flipped and _same_items(gold.items, answer.items[::-1], same)
    )


def _variable(relation: Node) -> str | None:
    names = [part.text for part in relation.items if is_name(part)]
    return names[0] if len(names) == 1 else None


def as_interval(relation: Node) -> Node | None:
    """The interval that "x > 2" or "0 < x <= 1" describes, or None."""
    name = _variable(relation)
    if name is None or not set(relation.marks) <= set(_FLIPPED) or len(relation.items) > 3:
        return None
    at = next(i for i, part in enumerate(relation.items) if part.text == name)
    if len(relation.items) == 3 and at != 1:
        return None
    low, high = Node("scalar", r"-\infty"), Node("scalar", r"\infty")
    brackets = ["(", ")"]
    for i, operator in enumerate(relation.marks):
        bound_first = i < at  # the bound stands to the left of its operator
        bound = relation.items[i] if bound_first else relation.items[i + 1]
        operator = operator if bound_first else _FLIPPED[operator]  # now read "bound ? x"
        closed = operator in (r"\le", r"\ge")
        if operator in ("<", r"\le"):
            low, brackets[0] = bound, "[" if closed else "("
        else:
            high, brackets[1] = bound, "]" if closed else ")"
    text = f"{brackets[0]}{low.text},{high.text}{brackets[1]}"
    return Node("group", text, (low, high), tuple(brackets))


def _alternatives_as_union(node: Node) -> Node:
    """Read "x < -1 or x > 1" as a union of intervals."""
    if node.kind != "list" or node.marks != ("or",):
        return node
    if not all(item.kind == "relation" for item in node.items):
        return node
    if len({_variable(item) for item in node.items}) != 1:
        return node
    intervals = [as_interval(item) for item in node.items]
    if any(interval is None for interval in intervals):
        return node
    return Node("union", node.text, tuple(i for i in intervals if i))


def to_sympy(latex: str) -> sympy.Expr:
    """Read one formula with math-verify. Raises UnreadableError."""
    if _BASE.search(latex):
        raise UnreadableError(f"{latex[:80]!r} is written in another base")
    exact = _REPEATING.sub(_as_repeating_fraction, latex)
    exact = _DECIMAL.sub(_as_fraction, exact)
    exact = _DEGREES.sub(lambda m: rf"(\frac{{{m[1]}\pi}}{{180}})", exact)
    found = parse(
        f"${exact}$",
        [_READING],
        fallback_mode="no_fallback",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]
    )
    if len(found) != 1 or not isinstance(found[0], sympy.Expr):
        raise UnreadableError(f"{latex[:80]!r} is not a formula that math-verify reads")
    expression: Any = found[0]
    imaginary = [symbol for symbol in expression.free_symbols if str(symbol) == "i"]
    return expression.subs(dict.fromkeys(imaginary, sympy.I)) if imaginary else expression


def _as_fraction(match: re.Match[str]) -> str:
    digits = int(match[1] + match[2])
    return rf"(\frac{{{digits}}}{{{10 ** len(match[2])}}})"


def _as_repeating_fraction(match: re.Match[str]) -> str:
    whole, fixed, period = match.groups()
    numerator = int(whole + fixed + period) - int(f"0{whole}{fixed}")
    return rf"(\frac{{{numerator}}}{{{(10 ** len(period) - 1) * 10 ** len(fixed)}}})"


def equal_scalars(gold: str, answer: str, rel_tolerance: float = 0.0) -> bool:
    """True when two formulas have the same value, whatever their variables."""
    left, right = to_sympy(gold), to_sympy(answer)
    if rel_tolerance and left.is_number and right.is_number:
        return _close(left, right, rel_tolerance)
    if left.free_symbols != right.free_symbols or _differ_in_case(gold, answer):
        return False
    accepted = verify(left, right, float_rounding=15, timeout_seconds=None)
    return accepted and all(
        _close(left.subs(values), right.subs(values), _ROUNDING) for values in _samples(left)
    )


def _differ_in_case(gold: str, answer: str) -> bool:
    """True for x against X, which math-verify reads as the same variable."""
    letters_g, letters_a = (
        set(re.sub(r"\\[a-zA-Z]+|[^a-zA-Z]", "", text)) for text in (gold, answer)
    )
    return any(c not in letters_a and c.swapcase() in letters_a for c in letters_g)


def _samples(expression: sympy.Expr) -> list[dict[Any, Any]]:
    """A few values for the expression's variables."""
    symbols = sorted(expression.free_symbols, key=str)
    if not symbols:
        return [{}]
    turns = [_POINTS[i:] + _POINTS[:i] for i in range(len(_POINTS))]
    return [dict(zip_longest(symbols, (turn * len(symbols))[: len(symbols)])) for turn in turns]


def _close(left: Any, right: Any, tolerance: Any) -> bool:
    """|left - right| within `tolerance` of the larger; where neither has a value, True."""
    left, right = (sympy.N(side.doit(), DIGITS) for side in (left, right))
    if not left.is_finite or not right.is_finite:
        return left == right or (left.is_finite is right.is_finite is None)
    return bool(abs(left - right) <= tolerance * max(abs(left), abs(right)))
