"""A multi grader's formula: parsed by Python's `ast`, walked by hand, never evaluated.

Grammar: numbers, grader names, `+ - * / ^`, unary signs, parentheses, and the functions below.
Everything is a float, so that no number can grow without bound. Names are checked when the
formula is read; division by zero, overflow, complex and undefined values are errors, no numbers.
"""

import ast
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from rollout.verifiers.base import FormulaError

MAX_CHARACTERS, MAX_NODES, MAX_DEPTH = 2000, 400, 50
FUNCTIONS: dict[str, tuple[int, int | None, Callable[..., float]]] = {  # fewest and most arguments
    "min": (1, None, lambda *values: min(values)),
    "max": (1, None, lambda *values: max(values)),
    "abs": (1, 1, math.fabs),
    "floor": (1, 1, math.floor),
    "ceil": (1, 1, math.ceil),
    "exp": (1, 1, math.exp),
    "sqrt": (1, 1, math.sqrt),
    "log": (1, 1, math.log),
}
_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: math.pow,
}


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula that was checked. `names` are the graders that it uses."""

    text: str
    tree: ast.expr
    names: frozenset[str]

    def value(self, scores: Mapping[str, float]) -> float:
        """Compute with these scores. Raises FormulaError when there is no finite value."""
        try:
            value = float(_value(self.tree, scores))
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            raise FormulaError(f"{self.text!r} has no value for {dict(scores)}: {error}") from None
        if not math.isfinite(value):
            raise FormulaError(f"{self.text!r} is {value} for {dict(scores)}")
        return value


def parse_formula(text: str, names: Collection[str]) -> Formula:
    """Read a formula over grader `names`. Raises FormulaError, naming what is wrong and the fix."""
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(f"a formula of {len(text)} characters: at most {MAX_CHARACTERS}")
    if "**" in text:
        raise FormulaError(f"{text!r}: write ^ for powers, not **")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormulaError(f"{text!r} is no formula: {error}") from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise FormulaError(f"a formula of more than {MAX_NODES} parts: make it shorter")
    used: set[str] = set()
    _check(tree, set(names), used, MAX_DEPTH)
    return Formula(text, tree, frozenset(used))


def _check(node: ast.expr, names: set[str], used: set[str], depth: int) -> None:
    if depth == 0:
        raise FormulaError(f"a formula nested deeper than {MAX_DEPTH}")
    match node:
        case ast.Constant(value=bool() | complex() | str() | bytes() | None):
            raise FormulaError(f"{ast.unparse(node)!r} in the formula is no number")
        case ast.Constant(value=int() | float() as number):
            if not math.isfinite(_as_float(number)):
                raise FormulaError(f"{ast.unparse(node)[:40]!r} in the formula is too large")
        case ast.Name(id=name):
            if name not in names:
                raise FormulaError(
                    f"the formula uses {name!r}; the graders are {', '.join(sorted(names))}"
                )
            used.add(name)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
            _check(left, names, used, depth - 1)
            _check(right, names, used, depth - 1)
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            _check(operand, names, used, depth - 1)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            _check_call(name, len(arguments))
            for argument in arguments:
                _check(argument, names, used, depth - 1)
        case _:
            raise FormulaError(
                f"{ast.unparse(node)[:80]!r} may not stand in a formula: use numbers, grader "
                f"names, + - * / ^ and {', '.join(FUNCTIONS)}"
            )


def _check_call(name: str, num_arguments: int) -> None:
    if name not in FUNCTIONS:
        raise FormulaError(f"there is no function {name!r}; choose {', '.join(FUNCTIONS)}")
    fewest, most, _ = FUNCTIONS[name]
    if num_arguments < fewest or (most is not None and num_arguments > most):
        wanted = str(fewest) if fewest == most else f"{fewest} or more"
        raise FormulaError(f"{name} takes {wanted} arguments, and was given {num_arguments}")


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _value(node: ast.expr, scores: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return float(scores[name])
        case ast.BinOp(left=left, op=operator, right=right):
            return _BINARY[type(operator)](_value(left, scores), _value(right, scores))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, scores)
        case ast.UnaryOp(operand=operand):
            return _value(operand, scores)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return float(FUNCTIONS[name][2](*(_value(argument, scores) for argument in arguments)))
    raise AssertionError(f"unchecked {ast.dump(node)}")
