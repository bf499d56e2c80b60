"""Imports run one way, and the light modules stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("rollout", "train", "serve_app")  # from low to high
HEAVY = {"torch", "ray", "vllm"}
LIGHT = [
    "rollout/types.py",
    "rollout/steps.py",
    "rollout/verifiers/__init__.py",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("rollout/verifiers/[!_]*.py")),
    "rollout/collector.py",
    # All of the service but the application that Ray Serve loads.
    *sorted(
        str(p.relative_to(ROOT)) for p in ROOT.glob("serve_app/[!_]*.py") if p.name != "app.py"
    ),
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("serve_app/*/[!_]*.py")),
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("train/auto/*.py")),
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("train/experts/*.py")),
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("train/selection/*.py")),
    "train/grader_inference.py",
    "train/spec.py",
    "train/data.py",
    "train/step_parser.py",
    "train/stop.py",
    "train/advantages.py",
]


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_by(node: ast.AST, package: str) -> Iterator[str]:
    """Top-level packages that one import statement names; a relative one names `package`."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield package if node.level else (node.module or "").split(".")[0]


def all_imports(tree: ast.AST, package: str) -> set[str]:
    """Everything imported anywhere in a file, functions and TYPE_CHECKING included."""
    return {name for node in ast.walk(tree) for name in imported_by(node, package)}


def loaded_imports(node: ast.AST, package: str) -> set[str]:
    """What importing the file loads: not inside functions, not under `if TYPE_CHECKING`."""
    names = set(imported_by(node, package))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                names |= loaded_imports(other, package)
            continue
        names |= loaded_imports(child, package)
    return names


def sources(package: str) -> list[Path]:
    """The package's Python files."""
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no files in {package}"
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_one_that_lies_above_it(package):
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    wrong = {
        str(path.relative_to(ROOT)): bad
        for path in sources(package)
        if (bad := all_imports(parse(path), package) & above)
    }
    assert wrong == {}


def test_only_the_engine_and_the_weight_transfer_import_vllm():
    users = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        if "vllm" in all_imports(parse(path), package)
    }
    assert users == {"rollout/engine.py", "rollout/weights.py"}


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_loads_neither_torch_nor_ray_nor_vllm_itself(name):
    assert loaded_imports(parse(ROOT / name), name.split("/")[0]) & HEAVY == set()


def test_the_import_finder_sees_what_it_must_and_no_more():
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import json\n"
        "def f():\n    import ray\n"
        "class A:\n    import vllm.config\n"
        "try:\n    from yaml import x\nexcept ImportError:\n    pass\n"
    )
    assert loaded_imports(tree, "train") == {"typing", "json", "vllm", "yaml"}
    assert all_imports(tree, "train") >= {"torch", "ray", "vllm"}


@pytest.mark.parametrize(
    "modules", [["train.spec"], [n.removesuffix(".py").replace("/", ".") for n in LIGHT]]
)
def test_importing_the_specification_or_any_light_module_loads_no_heavy_package(modules):
    modules = [m.removesuffix(".__init__") for m in modules]
    heavy = HEAVY | {"transformers"}
    code = (
        f"import sys, {', '.join(modules)}\nprint(sorted(set({sorted(heavy)}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
