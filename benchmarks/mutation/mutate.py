"""Small, plausible mistakes: every way this module knows to make a source file wrong.

Docstrings, annotations and the texts of error messages are left alone.
"""

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
NEGATIONS: dict[type, type] = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum"}
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One wrong version of a module."""

    scope: str  # function or class that holds the change, "" for the module
    line: int
    before: str  # the changed expression or statement
    after: str
    source: str
    number: int  # of those with the same scope and change, from 1

    @property
    def key(self) -> str:
        """What it is, whatever the line numbers."""
        again = f" ({self.number})" if self.number > 1 else ""
        return f"{self.scope or 'module'}: {self.before} -> {self.after}{again}"


def mutants(source: str, scopes: tuple[str, ...] = ()) -> Iterator[Mutant]:
    """Yield every mutant of a module, or of its classes and functions named in `scopes`."""
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    numbers: Counter[tuple[str, str, str]] = Counter()
    for path, scope, node in _walk(tree, (), ""):
        if scopes and scope.split(".")[0] not in scopes:
            continue
        for make in _changes(node):
            changed = copy.deepcopy(tree)
            parent, field, index = _locate(changed, path)
            new = make(copy.deepcopy(node))
            before, after = ast.unparse(node), ast.unparse(new) if new is not None else "(removed)"
            if index is None:
                setattr(parent, field, new)
            elif new is None:
                del getattr(parent, field)[index]
            else:
                getattr(parent, field)[index] = new
            ast.fix_missing_locations(changed)
            mutated = ast.unparse(changed)
            if mutated in seen:
                continue
            seen.add(mutated)
            numbers[scope, before, after] += 1
            number, line = numbers[scope, before, after], getattr(node, "lineno", 0)
            yield Mutant(scope, line, before, after, mutated, number)


_Path = tuple[tuple[str, int | None], ...]
_SKIPPED_FIELDS = {"annotation", "returns", "type_params", "bases"}


def _walk(node: ast.AST, path: _Path, scope: str) -> Iterator[tuple[_Path, str, ast.AST]]:
    """Yield (path, scope, node) for all that may be changed."""
    for field, value in ast.iter_fields(node):
        if field in _SKIPPED_FIELDS:
            continue
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in items:
            if not isinstance(child, ast.AST) or _is_text(child):
                continue
            inner = scope
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{scope}.{child.name}" if scope else child.name
            here = (*path, (field, index))
            yield here, inner, child
            if not isinstance(child, ast.Raise | ast.Assert):  # their texts are for people
                yield from _walk(child, here, inner)


def _is_text(node: ast.AST) -> bool:
    """Docstrings, f-strings, imports."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)


def _locate(tree: ast.AST, path: _Path) -> tuple[ast.AST, str, int | None]:
    """The parent of the node at `path`, and where in it the node stands."""
    node = tree
    for field, index in path[:-1]:
        value = getattr(node, field)
        node = value if index is None else value[index]
    return node, *path[-1]


def _changes(node: ast.AST) -> Iterator[Callable[[ast.AST], ast.AST | None]]:
    """Yield functions that turn a copy of `node` into something wrong."""
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                other = COMPARISONS[type(op)]
                yield lambda n, i=i, new=other: _set(n, "ops", i, new())
                if negation := NEGATIONS.get(type(op)):
                    yield lambda n, i=i, new=negation: _set(n, "ops", i, new())
        case ast.BinOp() | ast.AugAssign() if type(node.op) in OPERATORS:
            operator = OPERATORS[type(node.op)]
            yield lambda n: _replace(n, op=operator())
        case ast.BoolOp():
            swapped = ast.Or if isinstance(node.op, ast.And) else ast.And
            yield lambda n: _replace(n, op=swapped())
        case ast.UnaryOp():
            yield lambda n: n.operand  # pyright: ignore[reportAttributeAccessIssue]
        case ast.Constant():
            yield from _constants(node)
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield lambda n: _replace(n, value=ast.Constant(None))
        case ast.Call():
            yield from _calls(node)
        case ast.Name(id=name) if name in NAMES:
            yield lambda n: _replace(n, id=NAMES[name])
        case ast.Attribute(attr=name) if name in NAMES:
            yield lambda n: _replace(n, attr=NAMES[name])
        case ast.If() | ast.IfExp() | ast.While() if not isinstance(
            node.test, ast.Compare | ast.UnaryOp
        ):
            yield lambda n: _replace(n, test=ast.UnaryOp(ast.Not(), n.test))  # pyright: ignore
        case ast.Continue():
            yield lambda n: ast.Break()
    stores = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name)
    if stores or isinstance(node, ast.Expr | ast.AugAssign | ast.Raise):
        yield lambda n: ast.Pass()


def _constants(node: ast.Constant) -> Iterator[Callable[[ast.AST], ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield lambda n: ast.Constant(not value)
    elif isinstance(value, int | float):
        yield lambda n: ast.Constant(value + 1)
    elif isinstance(value, str) and value:
        yield lambda n: ast.Constant(value + "X")


def _calls(node: ast.Call) -> Iterator[Callable[[ast.AST], ast.AST]]:
    """A keyword forgotten, two arguments swapped, a method not called, as in `x.detach()`."""
    for i in range(len(node.keywords)):
        yield lambda n, i=i: _replace(n, keywords=[k for j, k in enumerate(n.keywords) if j != i])  # pyright: ignore
    name = ast.unparse(node.func).rpartition(".")[2]
    for i in range(len(node.args) - 1 if name not in NAMES else 0):  # those are symmetric
        left, right = node.args[i : i + 2]
        if not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
            yield lambda n, i=i: _swap_arguments(n, i)  # pyright: ignore[reportArgumentType]
    if isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
        yield lambda n: n.func.value  # pyright: ignore[reportAttributeAccessIssue]


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _swap_arguments(node: ast.Call, i: int) -> ast.Call:
    node.args[i : i + 2] = node.args[i + 1], node.args[i]
    return node


def _replace(node: ast.AST, **fields: object) -> ast.AST:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def _set(node: ast.AST, field: str, index: int, value: ast.AST) -> ast.AST:
    getattr(node, field)[index] = value
    return node
