"""The mutation report, and what in it is not as it should be."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EQUIVALENT = Path(__file__).with_name("equivalent.json")


def explained() -> dict[str, dict[str, str]]:
    """{module: {mutant's key: why no test can tell it from the original}}."""
    return json.loads(EQUIVALENT.read_text(encoding="utf-8"))


def unexplained(results: list[dict[str, Any]]) -> list[str]:
    """Survivors without a reason, and reasons without a survivor."""
    problems, reasons = [], explained()
    for result in results:
        known = reasons.get(result["module"], {})
        keys = {survivor["key"] for survivor in result["survivors"]}
        for survivor in result["survivors"]:
            if survivor["key"] not in known:
                problems.append(f"{result['module']}, line {survivor['line']}: {survivor['key']}")
        problems += [f"{result['module']}: is killed: {key}" for key in known if key not in keys]
    return problems


def render(results: list[dict[str, Any]], modules: Iterable[str]) -> str:
    """The page, in Markdown. Of `modules`, those without a result are said to be missing."""
    killed = sum(len(result["killed"]) for result in results)
    left = sum(len(result["survivors"]) for result in results)
    total = killed + left
    lines = [
        "# Mutation",
        "",
        "Every module below was made wrong in one place after another (`benchmarks/mutation/`: a",
        "comparison, an operator, a constant, a negation, a statement or a keyword left out, two",
        "arguments swapped, a value not returned, a method not called), and its fast tests were",
        "run. Error texts and docstrings are left alone. `make mutation` runs it again, and fails",
        "when a survivor is not listed here. `source` is the file's hash in git (`git",
        "hash-object`); a module that has changed since counts as not run.",
        "",
        f"{total} mutants, {killed} killed, {left} survivors, all of them listed."
        if not unexplained(results)
        else f"{total} mutants, {killed} killed, {left} survivors.",
        "",
        "| module | mutants | killed | survivors | source |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        killed, survivors = len(result["killed"]), len(result["survivors"])
        lines.append(
            f"| `{result['module']}` | {killed + survivors} | {killed} | {survivors} "
            f"| `{result['source']}` |"
        )
    done = {result["module"] for result in results}
    lines += [f"| `{name}` | not run | | | |" for name in modules if name not in done]
    lines += [
        "",
        "The tool is the repository's own: mutmut 3 changes bodies of undecorated functions",
    ]
    lines += [
        "only, and here thresholds, defaults and validators matter as much.",
    ]
    if left:
        lines += ["", "## Survivors"]
    reasons = explained()
    for result in results:
        if not result["survivors"]:
            continue
        lines += ["", f"### `{result['module']}`", ""]
        for survivor in result["survivors"]:
            reason = reasons.get(result["module"], {}).get(survivor["key"], "**unexplained**")
            key = survivor["key"].replace("\n", " ")
            lines.append(f"- line {survivor['line']}, `{key}`: {reason}")
    return "\n".join(lines) + "\n"
