"""The first calls of torch's vector functions: none is forgotten, and they precede the model's."""

import re
from mmap import ACCESS_READ, mmap
from pathlib import Path

import pytest
import torch

from rollout import vector_math

ROOT = Path(__file__).resolve().parents[2]
TORCH_NAMES = {"Ln": "log"}  # where MKL's name is not torch's with a capital


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch is built without MKL")
def test_the_functions_are_those_that_this_torch_takes_from_mkl():
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    with library.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        exported = set(re.findall(rb"\0vms([A-Z][A-Za-z0-9]*)(?=\0)", content))
    names = {name.decode() for name in exported}
    assert {TORCH_NAMES.get(name, name.lower()) for name in names} == set(vector_math.FUNCTIONS)


def test_each_function_is_called_on_one_number_in_both_precisions(monkeypatch):
    calls = []

    def spy(name, function):
        return lambda x: calls.append((name, x.dtype, x.numel())) or function(x)

    for name in vector_math.FUNCTIONS:
        monkeypatch.setattr(torch, name, spy(name, getattr(torch, name)))
    vector_math.use_threads(torch.get_num_threads())
    assert set(calls) == {
        (name, dtype, 1)
        for name in vector_math.FUNCTIONS
        for dtype in (torch.float32, torch.float64)
    }


def test_the_number_of_threads_is_set(monkeypatch):
    asked = []  # not read from torch: vLLM's CPU worker replaces its setter for the whole process
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    vector_math.use_threads(3)
    assert asked == [3]


def test_threads_are_set_nowhere_else():
    folders = ("benchmarks", "examples", "models", "rollout", "serve_app", "train")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = [str(p.relative_to(ROOT)) for p in paths if "set_num_threads" in p.read_text()]
    assert sorted(found) == ["benchmarks/vector_math.py", "rollout/vector_math.py"]


@pytest.mark.parametrize(
    ("path", "first_use"),
    [
        ("rollout/engine.py", " LLM("),
        ("train/learner.py", " Policy("),
        ("train/sft.py", " SFTTrainer("),
    ],
)
def test_threads_are_set_before_a_model_is_loaded(path, first_use):
    text = (ROOT / path).read_text()
    assert 0 < text.find("    use_threads(") < text.find(first_use)
