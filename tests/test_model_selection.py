"""Model selection with real engines: the model that can solve the rows is measured to be better."""

import os
import random
import shutil

import pytest
import ray
import torch
from conftest import MODEL, ROOT
from serve.kit import whole_service
from transformers import AutoModelForCausalLM, AutoTokenizer

from serve_app import native, wire
from serve_app.create import Attempted
from serve_app.native_schemas import SelectModel
from serve_app.preparation import prepare_job
from serve_app.request_types import parse_request
from serve_app.schemas import StartTraining
from serve_app.store.database import Database
from serve_app.store.jobs import get_job
from serve_app.store.migrate import migrate
from serve_app.validation import enter
from train.experts.digit_programs import LINE_OPERATIONS


@pytest.fixture
def cluster():
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    yield
    ray.shutdown()


@pytest.fixture
def untrained(tmp_path) -> str:
    """The embedded model with random weights."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    folder = tmp_path / "untrained"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def service(untrained, tmp_path):
    """A service of three models, of which one can solve the rows below, and one is broken."""
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    migrate(database)
    broken = tmp_path / "broken"
    shutil.copytree(MODEL, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    models = {"a-untrained": untrained, "b-broken": str(broken), "ferrata-tiny": str(MODEL)}
    yield whole_service(database, tmp_path / "data", models=models)
    database.close()


@pytest.fixture
def caller(service):
    return service.keyring.authenticate(service.keyring.create_key("p", "k")[1])


def problems() -> list[dict]:
    """Programs of one line, which the embedded model does well."""
    rng = random.Random(1)
    texts = [f"{rng.randrange(10_000):04d}:1{rng.choice(LINE_OPERATIONS)}" for _ in range(40)]
    return [{"messages": [{"role": "user", "content": text}]} for text in dict.fromkeys(texts)]


def test_the_model_that_solves_the_rows_is_selected_by_what_was_measured(cluster, service, caller):
    rows = problems()
    constraints = {"num_problems": 32, "k": 4}
    body = parse_request(SelectModel, {"task": "lines", "rows": rows, "constraints": constraints})
    answer = native.select_model(service, caller, body)
    assert answer["selected_model_id"] == "ferrata-tiny"
    best, other, broken = answer["candidates"]
    assert (broken["model_id"], broken["score"]) == ("b-broken", None)
    assert broken["reason"].startswith("not measured: ")
    assert best["score"] == answer["score"] > 0.5
    assert (other["model_id"], other["score"]) == ("a-untrained", 0.0)
    assert answer["selection_cost"]["share_of_full_evaluation"] <= 0.5
    assert (best["on_pareto_front"], other["interval"][0]) == (True, 0.0)
    assert best["measured"]["step_reward"] > other["measured"]["step_reward"]
    for seen in (best, other):
        # Of 32, 4 at first: 4 of 4 solved lies above 0 of 4, so that few more are needed.
        assert seen["measured"]["num_problems"] <= 16
        assert seen["counted"]["flops_per_problem"] > seen["counted"]["num_parameters"]


def hard_problems() -> list[dict]:
    """Programs of six lines, which no model here solves."""
    rng = random.Random(2)
    made = []
    for _ in range(24):
        lines = [f"{n}{rng.choice(LINE_OPERATIONS)}" for n in range(1, 7)]
        text = f"{rng.randrange(10_000):04d}:{','.join(lines)}"
        made.append({"messages": [{"role": "user", "content": text}]})
    return made


def test_where_no_model_solves_anything_each_is_trained_for_a_few_real_srl_steps(
    cluster, service, caller
):
    weights = (MODEL / "model.safetensors").read_bytes()
    constraints = {"models": ["a-untrained", "ferrata-tiny"], "num_problems": 8, "k": 1}
    body = parse_request(
        SelectModel, {"task": "hard", "rows": hard_problems(), "constraints": constraints}
    )
    answer = native.select_model(service, caller, body)
    best, other = answer["candidates"]
    assert (best["model_id"], best["score"], other["score"]) == ("ferrata-tiny", 0.0, 0.0)
    gained, stuck = best["measured"]["srl_probe"], other["measured"]["srl_probe"]
    assert gained["num_steps"] == 4
    # The samples' seed is the same before and after: only other weights give another reward.
    assert gained["after"] != gained["before"]
    assert gained["after"] > stuck["after"]
    # Random weights write a think block by the rarest chance: nearly every reward is -1.
    assert -1.0 <= stuck["before"] < -0.95
    assert -1.0 <= stuck["after"] < -0.95
    assert answer["selection_cost"]["srl_probe_flops"] > gained["flops"] * 0.99
    assert (MODEL / "model.safetensors").read_bytes() == weights


def test_a_job_that_names_no_model_gets_the_one_that_was_measured_best(
    cluster, service, caller, monkeypatch
):
    body = parse_request(StartTraining, {"model": "auto", "rows": problems()})
    job, _ = native.start_training(service, caller, body, Attempted())
    prepared = prepare_job(service.settings, job.id, ray.cluster_resources())
    assert (prepared.error, prepared.model) == (None, "ferrata-tiny")
    told = [note for note in prepared.notes if note.startswith("model selection: ")]
    assert told[0].startswith("model selection: ferrata-tiny: pass@k ")
    assert told[0].endswith("; selected")
    assert "a-untrained: pass@k 0.000" in told[1]
    assert told[2].startswith("model selection: b-broken: not measured: ")
    # A preparation that was killed after the choice, and is run again, does not measure again.
    folder = service.settings.job_folder(job.id)
    (folder / "prepared.json").unlink()
    monkeypatch.setattr("serve_app.native_select.probe", lambda *_, **__: pytest.fail("probed"))
    assert prepare_job(service.settings, job.id, ray.cluster_resources()) == prepared
    with service.database.write() as session:
        row = get_job(session, job.id, lock=True)
        enter(session, row, prepared)
        shown = wire.job_object(row, "o", None)
    assert (shown["model"], shown["status"]) == ("ferrata-tiny", "queued")
    assert row.spec["model"] == str(MODEL)
