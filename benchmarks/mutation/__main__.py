"""`python -m benchmarks.mutation`: are the tests able to fail? One wrong version after another.

Each mutant of the modules in TARGETS runs that module's fast tests in a forked child, which has the
libraries loaded and imports the project anew, the mutated module from memory. A mutant is killed
when a test fails, hangs or dies. What survives and is not listed as equivalent in equivalent.json
is an error, and so is a listed one that does not survive.

Run it in a clone that nobody edits: the tests look for files that are left behind. Results are
kept per module under --out; of a module that has one, and has not changed since, only what was
not killed is tried again. The report is written from the results.
"""

import argparse
import gc
import importlib
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.mutation.mutate import Mutant, mutants
from benchmarks.mutation.report import render, unexplained

ROOT = Path(__file__).resolve().parents[2]
MEMORY = Path("/dev/shm")  # noqa: S108
CPU_LIMIT_S, WALL_LIMIT_S = 120, 900  # the wall limit is for a busy machine
PRELOADED = (
    "torch",
    "transformers.models.qwen3.modeling_qwen3",
    "safetensors.torch",
    "ray.train",
    "numpy",
    "pydantic",
    "pytest",
    "cydifflib",
    "nltk.translate.meteor_score",
    "rapidfuzz.fuzz",
    "rouge_score.rouge_scorer",
    "sacrebleu",
    "yaml",
    "httpx",
)
# module: (classes and functions, all when empty; pytest's arguments: tests that must kill all)
TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "train.loss": ((), ("tests/train/test_loss.py", "tests/train/test_loss_shares.py")),
    "train.advantages": ((), ("tests/train/test_advantages.py",)),
    "train.batch": ((), ("tests/train/test_batch.py",)),
    "train.checkpoint": ((), ("tests/train/test_checkpoint.py",)),
    "train.srl": ((), ("tests/train/test_srl.py",)),
    "train.rlvr": ((), ("tests/train/test_rlvr.py",)),
    # Dynamic sampling's filter.
    "rollout.collector": (
        (),
        ("tests/rollout/test_collector.py", "tests/rollout/test_failing_graders.py"),
    ),
    "rollout.steps": ((), ("tests/rollout/test_steps.py",)),
    "rollout.verifiers.step_similarity": (
        (),
        ("tests/rollout/test_step_similarity.py", "-k", "not faster"),  # measures time
    ),
    "rollout.verifiers.text_similarity": ((), ("tests/rollout/test_text_similarity.py",)),
    "rollout.verifiers.similarity_metrics": ((), ("tests/rollout/test_similarity_metrics.py",)),
    "rollout.verifiers.answer": ((), ("tests/rollout/test_answer.py",)),
    "rollout.verifiers.base": (
        ("Grade", "Grader", "TokenUsage", "grade_with", "final_text", "output_text"),
        ("tests/rollout/test_grade.py",),
    ),
}


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The mutated module's spec; None for every other module."""
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def create_module(self, spec: Any) -> None:
        """An ordinary module."""

    def exec_module(self, module: Any) -> None:
        """Run the mutated source in it."""
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)  # noqa: S102


def survives(name: str, source: str, tests: tuple[str, ...]) -> bool:
    """Run the tests against a version of a module in a forked child; True when all pass."""
    # In memory: what is flushed to the disk costs more than all else.
    with tempfile.TemporaryDirectory(
        prefix="fm", dir=MEMORY if MEMORY.exists() else None
    ) as scratch:
        pid = os.fork()
        if pid == 0:
            _child(name, source, tests, scratch)
        deadline = time.monotonic() + WALL_LIMIT_S
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status) == 0
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.02)


def _child(name: str, source: str, tests: tuple[str, ...], scratch: str) -> None:
    """Never returns."""
    code = 70
    try:
        os.setpgid(0, 0)  # so that a killed child takes its own children along
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S + 5))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        inner = Path(scratch) / "s"  # the tests remove it themselves
        inner.mkdir()
        os.environ["FERRATA_TEST_SCRATCH"] = str(inner)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of the time otherwise
        sys.meta_path.insert(0, _Mutated(name, _path(name), source))
        import pytest

        code = int(pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests]))
    except BaseException:  # a mutant that cannot even be imported is killed
        traceback.print_exc()
    finally:
        os._exit(code)


def _load_what_it_imports(name: str) -> None:
    """Only once for all mutants. Nothing that a module imports imports it, so that is sound."""
    importlib.import_module(name)
    del sys.modules[name]
    package, _, short = name.rpartition(".")
    delattr(sys.modules[package], short)
    gc.freeze()  # or every child's pytest collects all of torch's garbage, twice


def run_module(name: str, out: Path) -> dict[str, Any]:
    """Try every mutant of one module that no earlier run of the same source killed."""
    scopes, tests = TARGETS[name]
    source, file = _path(name).read_text(encoding="utf-8"), out / f"{name}.json"
    _load_what_it_imports(name)
    if not survives(name, source, tests):
        raise SystemExit(f"{name}: its tests fail on the code as it is: {' '.join(tests)}")
    found: list[Mutant] = list(mutants(source, scopes))
    killed: set[str] = set()
    if file.exists():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        if earlier["source"] == source_id(name):
            killed = set(earlier["killed"]) & {mutant.key for mutant in found}
    survivors, tried = [], [mutant for mutant in found if mutant.key not in killed]
    for number, mutant in enumerate(tried, start=1):
        if survives(name, mutant.source, tests):
            survivors.append({"line": mutant.line, "key": mutant.key})
            print(f"  survived: line {mutant.line}, {mutant.key}", flush=True)
        else:
            killed.add(mutant.key)
        if number % 20 == 0:
            print(f"  {name}: {number} of {len(tried)}", flush=True)
    result = {
        "module": name,
        "source": source_id(name),
        "survivors": survivors,
        "killed": sorted(killed),
    }
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def source_id(name: str) -> str:
    """Git's name for a module's source as it lies here, shortened."""
    command = ["git", "-C", str(ROOT), "hash-object", str(_path(name))]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout[:12]


def _path(name: str) -> Path:
    return ROOT / f"{name.replace('.', '/')}.py"


def main() -> int:
    """Run the modules asked for; 1 when a survivor is unexplained, or an explained one dies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "mutation")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--report", type=Path, help="default: mutation.md in --out")
    parser.add_argument("--no-run", action="store_true", help="only write the report")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork must not inherit a pool of threads
    sys.dont_write_bytecode = True
    if not args.no_run:
        for module in PRELOADED:
            importlib.import_module(module)
        for name in args.modules or TARGETS:
            if args.fresh:
                (args.out / f"{name}.json").unlink(missing_ok=True)
            run_module(name, args.out)
    files = [args.out / f"{name}.json" for name in TARGETS]
    results = [json.loads(f.read_text(encoding="utf-8")) for f in files if f.exists()]
    results = [result for result in results if result["source"] == source_id(result["module"])]
    target = args.report or args.out / "mutation.md"
    target.write_text(render(results, TARGETS), encoding="utf-8")
    problems = unexplained(results)
    print("\n".join([*problems, f"{target} written"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
