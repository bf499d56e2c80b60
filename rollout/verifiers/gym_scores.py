"""reasoning-gym's scorers, behind a screen. Runs in a child process.

Some of its scorers hand the answer to Python's `eval`, or to SymPy's parser, which uses it. For
the former the answer has to be a plain literal or plain arithmetic, for the latter, which also
evaluates what stands inside quotes, arithmetic; anything else scores 0. Which scorers those are is
read from the sources, so that new ones are found.
"""

import ast
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

from rollout.verifiers.gym_import import reasoning_gym

DATASETS = reasoning_gym.factory.DATASETS

_EVALUATES = re.compile(r"\b(?:eval|exec)\(")
_PARSES = re.compile(r"\b(?:parse_expr|sympify|S)\(|\b(?:sympy|sp)\.(?:simplify|Poly)\(")
_MATHS = re.compile(r"[\w\s+*/^().,=-]*")
_WORDS = {
    "sin", "cos", "tan", "exp", "log", "ln", "sqrt", "pi", "asin", "acos", "atan", "sec", "csc",
    "cot", "sinh", "cosh", "tanh", "Abs",
}  # fmt: skip
_TOWER = re.compile(r"(\*\*|\^)[\s\w.()]*(\*\*|\^)|\d{8,}|(\*\*|\^)\s*\(?\s*-?\d{4,}")


def score(argument: Any, mark: Callable[[str], None]) -> dict[str, Any]:
    """Score {"dataset", "entry", "answer"}: {"score"}, or {"unknown": the names there are}."""
    name = argument["dataset"]
    if name not in DATASETS:
        return {"unknown": sorted(DATASETS)}
    scorer: Any = reasoning_gym.get_score_answer_fn(name)
    entry, answer = argument["entry"], argument["answer"]
    mark("answer")
    if not is_harmless(answer, **evaluation(name)):
        return {"score": 0.0, "refused": True}
    try:
        return {"score": float(scorer(answer, entry))}
    except MemoryError:
        raise
    except Exception:
        # Acceptable if the scorer can score the entry's own answer: then this one is at fault.
        float(scorer(str(entry["answer"]), entry))
        return {"score": 0.0, "refused": True}


@functools.cache
def evaluation(name: str) -> dict[str, bool]:
    """Does a data set's scorer evaluate text (`evaluates`), or have SymPy parse it (`parses`)?"""
    sources = _sources(DATASETS[name][0].score_answer, DATASETS[name][0], set())
    return {
        "evaluates": any(map(_EVALUATES.search, sources)),
        "parses": any(map(_PARSES.search, sources)),
    }


def _sources(function: Any, owner: type, seen: set[Any]) -> list[str]:
    """The source of a function and of all of reasoning-gym's functions and methods that it names.

    A function of its own called `parse_expr` is renamed: it is not SymPy's.
    """
    if function in seen:
        return []
    seen.add(function)
    source, found = inspect.getsource(function), []
    for word in dict.fromkeys(re.findall(r"[A-Za-z_]\w*", source)):
        other = getattr(owner, word, None) or function.__globals__.get(word)
        if inspect.isfunction(other) and other.__module__.startswith("reasoning_gym"):
            found += _sources(other, owner, seen)
            source = re.sub(rf"\b{word}\b", f"own_{word}", source)
    return [source, *found]


def is_harmless(answer: str, *, evaluates: bool, parses: bool) -> bool:
    """True for text that does no more than compute when it is evaluated."""
    if not (evaluates or parses) or is_arithmetic(answer):
        return True
    if parses:
        return False
    try:
        ast.literal_eval(answer.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return False
    return True


def is_arithmetic(answer: str) -> bool:
    """True for numbers, operators, one-letter or upper-case names and known functions."""
    return (
        bool(_MATHS.fullmatch(answer))
        and not re.search(r"__|\.\s*[A-Za-z_]", answer)
        and not _TOWER.search(answer)
        and all(
            len(word) == 1 or word in _WORDS or word.isupper()
            for word in re.findall(r"[A-Za-z_]\w*", answer)
        )
    )
