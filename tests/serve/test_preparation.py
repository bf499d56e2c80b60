"""A job keeps the model that it starts from."""

import json
import shutil

import pytest
from conftest import MODEL
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from serve_app.catalogue import KnownModel
from serve_app.native_select import select_model
from serve_app.preparation import choose_model, pinned
from serve_app.prepare import prepare
from serve_app.prepare_error import PrepareError
from train.experts import digit_programs
from train.selection.estimate import Throughput
from train.selection.ranking import Measurement
from train.spec_file import parse_spec

NAME = "ft:ferrata-tiny:ferrata::12345678:ckpt-step-9"


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint's folder: a model, and what its own job needs to go on."""
    folder = tmp_path / "step-000009"
    shutil.copytree(MODEL, folder)
    for name in ("optimizer.safetensors", "manifest.json"):
        (folder / name).write_bytes(b"of the other job")
    return KnownModel(NAME, str(folder), "checkpoint")


def test_a_checkpoint_outlives_its_pruning_in_the_job_that_starts_from_it(checkpoint, tmp_path):
    model = (MODEL / "model.safetensors").read_bytes()
    for _ in range(2):  # the second as after a kill
        path = pinned(checkpoint, tmp_path / "base")
    shutil.rmtree(checkpoint.path)
    kept = {file.name: file for file in (tmp_path / "base").iterdir()}
    assert path == str(tmp_path / "base")
    assert kept["model.safetensors"].read_bytes() == model
    assert {"optimizer.safetensors", "manifest.json"}.isdisjoint(kept)


def test_a_checkpoint_that_was_pruned_before_is_named(checkpoint, tmp_path):
    shutil.rmtree(checkpoint.path)
    with pytest.raises(PrepareError, match="was deleted in the meantime") as caught:
        pinned(checkpoint, tmp_path / "base")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_other_models_stay_where_they_are(tmp_path):
    base = KnownModel("ferrata-tiny", str(MODEL), "base")
    assert pinned(base, tmp_path / "base") == str(MODEL)
    assert not (tmp_path / "base").exists()


CLUSTER = {"CPU": 2.0, "memory": 8e9, "node:10.0.0.1": 1.0}
ANSWER = {"type": "answer", "pattern": "=(\\d{4})$"}


@pytest.fixture
def probed(monkeypatch):
    """Specifications that are probed; the probe itself says that all of it is solved."""
    specs = []

    def probe(spec, facts, *, first, last, k):
        specs.append(spec)
        num = last - first
        return Measurement(num, k, 1.0, 1.0, 10.0, 1e6, 0.1, (k,) * num)

    monkeypatch.setattr("serve_app.native_select.probe", probe)
    return specs


def rows_file(path):
    """Forty digit programs with their answers."""
    with path.open("w") as file:
        for number in range(40):
            problem = f"{number:04d}:1sr,2li"
            message = {"role": "user", "content": problem}
            answer = digit_programs.solve(problem)[2]
            file.write(json.dumps({"messages": [message], "reference_answer": answer}) + "\n")
    return path


def test_models_are_measured_under_the_settings_of_the_job_that_they_are_for(probed, tmp_path):
    part = {"grader": ANSWER}
    job = {
        "training_file": "f",
        "seed": 3,
        "method": {"type": "reinforcement", "reinforcement": part},
        "prompt": {"system": "S", "step_end": "|"},
        "sampling": {"protocol": "single", "max_tokens": 40},
    }
    files = {"training": rows_file(tmp_path / "t.jsonl")}
    name, _ = choose_model({"a": str(MODEL)}, job | {"model": "auto"}, files, CLUSTER)
    assert name == "a"
    made = prepare(job | {"model": "a"}, tmp_path / "job", files, str(MODEL), CLUSTER)
    wanted = parse_spec(made.spec, source="the job's")
    assert wanted.sampling.protocol == "single"
    for spec in probed:
        assert spec.model_copy(update={"data": wanted.data}) == wanted


def test_a_probe_asks_no_teacher_and_keeps_the_rest(probed, tmp_path):
    job = {
        "model": "auto",
        "training_file": "f",
        "seed": 3,
        "method": {"type": "srl", "srl": {"grader": ANSWER}},
        "sampling": {"max_tokens": 40},
        "teacher": {"base_url": "http://127.0.0.1:9/v1", "model": "m"},
        "documents": ["file-d"],
        "num_examples": 4,
    }
    files = {"training": rows_file(tmp_path / "t.jsonl")}
    assert choose_model({"a": str(MODEL)}, job, files, CLUSTER)[0] == "a"
    assert {(spec.sampling.max_tokens, spec.srl) for spec in probed} == {(40, None)}


def test_models_that_were_not_looked_at_are_named(probed, tmp_path, monkeypatch):
    monkeypatch.setattr("serve_app.native_schemas.MAX_CANDIDATES", 2)
    job = {"model": "auto", "training_file": "f", "seed": 3}
    files = {"training": rows_file(tmp_path / "t.jsonl")}
    models = dict.fromkeys(("base", "ft:new", "ft:old"), str(MODEL))
    _, notes = choose_model(models, job, files, CLUSTER)
    assert notes[-1] == (
        "model selection: 2 of 3 models were looked at, the service's own first, then the newest "
        "trained here; not looked at: ft:old"
    )


def larger(folder):
    """A model of the same vocabulary, twice as deep, with random weights."""
    config = AutoConfig.from_pretrained(MODEL)
    config.num_hidden_layers *= 2
    config.layer_types = None
    AutoModelForCausalLM.from_config(type(config)(**config.to_dict())).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return str(folder)


def test_a_budget_removes_what_would_take_too_long_and_says_what_was_measured(probed, tmp_path):
    path = rows_file(tmp_path / "t.jsonl")
    models = {"seen": str(MODEL), "larger": larger(tmp_path / "larger"), "bare": str(tmp_path)}
    measured = {"seen": Throughput(1000.0, 500.0, 40)}
    stated = {"seen": {"device_price_per_hour": 2.0}}

    def run(**constraints):
        request = {"constraints": {"num_problems": 8, "k": 2} | constraints, "seed": 1}
        return select_model(request, path, models, CLUSTER, stated, throughputs=measured)

    found = {one["model_id"]: one for one in run()["candidates"]}
    seen, other = found["seen"]["training"], found["larger"]["training"]
    assert seen["basis"] == "measured, from 40 optimizer steps of this model here"
    assert seen["cost"] == pytest.approx(2.0 * seen["device_hours"], rel=1e-2)
    assert (other["basis"], other["cost"]) == ("estimated, from 1 other models' jobs here", None)
    assert 1.5 < other["device_hours"] / seen["device_hours"] < 2.0  # layers double, the rest not
    between = (seen["device_hours"] + other["device_hours"]) / 2
    kept, unread, removed = run(max_device_hours=between)["candidates"]
    assert unread["reason"].startswith("not measured: ")
    assert (kept["model_id"], removed["model_id"]) == ("seen", "larger")
    assert removed["reason"].startswith("left out: ")
    assert f"max_device_hours is {between:,}" in removed["reason"]
    with pytest.raises(
        PrepareError, match=r"seen: .*max_cost is 1e-06; larger: max_cost is"
    ) as caught:
        run(max_cost=1e-6)
    assert caught.value.code == "no_model_within_limits"
    assert "; bare: not measured: " in caught.value.message


def test_a_cluster_that_fits_no_model_is_said_with_each_models_reason(tmp_path):
    path = rows_file(tmp_path / "t.jsonl")
    request = {"constraints": {"num_problems": 8, "k": 2}, "seed": 1}
    with pytest.raises(PrepareError) as caught:
        select_model(request, path, {"a": str(MODEL), "bare": str(tmp_path)}, {"CPU": 0.1})
    assert caught.value.message.startswith("no model fits the rows and the cluster; bare: not mea")
    assert "; a: not measured: learner.num_workers: is 1, but" in caught.value.message
