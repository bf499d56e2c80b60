"""The mutation tool makes wrong versions that differ, and its page hides no survivor."""

import ast

from benchmarks.mutation import report
from benchmarks.mutation.mutate import mutants

SOURCE = '''
"""Text."""
LIMIT = 0.5

def f(x: int, *, deep: bool = True) -> int:
    """More text."""
    if x < 3 and deep:
        raise ValueError("x is too small")
    self.x = x.detach()
    show(x, "y")
    show(x, x)
    return g(min(x + 1, 9), key=2)
'''


def keys() -> list[str]:
    return [mutant.key for mutant in mutants(SOURCE)]


def test_every_mutant_is_a_different_wrong_program():
    found = list(mutants(SOURCE))
    sources = {mutant.source for mutant in found}
    assert len(sources) == len(found) == len({mutant.key for mutant in found})
    assert ast.unparse(ast.parse(SOURCE)) not in sources, "show(x, x), its arguments swapped"


def test_the_usual_mistakes_are_among_them():
    assert {
        "module: 0.5 -> 1.5",
        "f: True -> False",
        "f: x < 3 -> x <= 3",
        "f: x < 3 -> x >= 3",
        "f: min -> max",
        "f: show(x, 'y') -> show('y', x)",
        "f: x < 3 and deep -> x < 3 or deep",
        "f: x + 1 -> x - 1",
        "f: g(min(x + 1, 9), key=2) -> g(min(x + 1, 9))",
        "f: x.detach() -> x",
        "f: self.x = x.detach() -> pass",
        "f: return g(min(x + 1, 9), key=2) -> return None",
        "f: raise ValueError('x is too small') -> pass",
    } <= set(keys())


def test_texts_and_annotations_are_left_alone():
    assert not any("text" in key.lower() or "'x is too smallX'" in key for key in keys())
    assert not any("int" in key for key in keys())


def test_only_the_scopes_asked_for_are_changed():
    assert {mutant.scope for mutant in mutants(SOURCE, ("f",))} == {"f"}


def test_a_survivor_without_a_reason_and_a_reason_without_a_survivor_are_told(monkeypatch):
    monkeypatch.setattr(report, "explained", lambda: {"m": {"gone": "why", "known": "because"}})
    survivors = [{"line": 3, "key": "known"}, {"line": 4, "key": "new"}]
    results = [{"module": "m", "source": "abc", "survivors": survivors, "killed": ["x"] * 7}]
    assert report.unexplained(results) == ["m, line 4: new", "m: is killed: gone"]
    page = report.render(results, ["m", "n"])
    assert "9 mutants, 7 killed, 2 survivors." in page
    assert "- line 3, `known`: because" in page
    assert "- line 4, `new`: **unexplained**" in page
    assert "| `m` | 9 | 7 | 2 | `abc` |" in page
    assert "| `n` | not run | | | |" in page
