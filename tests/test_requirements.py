"""docs/requirements.md names only modules and tests that exist."""

import ast
import re

from conftest import ROOT

PAGE = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")
ROWS = [line.split("|") for line in PAGE.splitlines() if line.startswith("| ")][1:]


def test_every_module_that_a_requirement_names_exists():
    modules = [m.strip() for row in ROWS for m in row[2].split(",")]
    assert len(modules) > 10
    assert [m for m in modules if not (ROOT / m).exists()] == []


def test_every_test_that_a_requirement_names_exists():
    missing = []
    for test in re.findall(r"tests/[\w/]+\.py(?:::\w+)?", PAGE):
        file, _, name = test.partition("::")
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
        functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        if not path.exists() or (name and name not in functions):
            missing.append(test)
    assert missing == []
