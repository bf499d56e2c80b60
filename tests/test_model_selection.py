"""Model selection with real engines: the model that can solve the rows is measured to be better."""

import os
import random

import pytest
import ray
import torch
from conftest import MODEL, ROOT
from serve.kit import whole_service
from transformers import AutoModelForCausalLM, AutoTokenizer

from serve_app import native
from serve_app.native_schemas import SelectModel
from serve_app.request_types import parse_request
from serve_app.store.database import Database
from serve_app.store.migrate import migrate
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


def test_the_model_that_solves_the_rows_is_selected_by_what_was_measured(
    cluster, untrained, tmp_path
):
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    migrate(database)
    models = {"a-untrained": untrained, "ferrata-tiny": str(MODEL)}
    service = whole_service(database, tmp_path / "data", models=models)
    caller = service.keyring.authenticate(service.keyring.create_key("p", "k")[1])
    assert caller is not None
    rng = random.Random(1)
    texts = [f"{rng.randrange(10_000):04d}:1{rng.choice(LINE_OPERATIONS)}" for _ in range(40)]
    rows = [{"messages": [{"role": "user", "content": text}]} for text in dict.fromkeys(texts)]
    constraints = {"num_problems": 16, "k": 4}
    body = parse_request(SelectModel, {"task": "lines", "rows": rows, "constraints": constraints})
    answer = native.select_model(service, caller, body)
    database.close()
    assert answer["selected_model_id"] == "ferrata-tiny"
    best, other = answer["candidates"]
    assert best["score"] == answer["score"] > 0.8
    assert (other["model_id"], other["score"]) == ("a-untrained", 0.0)
    assert answer["selection_cost"]["share_of_full_evaluation"] <= 0.5
    assert (best["on_pareto_front"], other["interval"][0]) == (True, 0.0)
    for seen in (best, other):
        # Of 16: 2 and 2 more; 4 of 4 solved lies above 0 of 4, so that no more are needed.
        assert seen["measured"]["num_problems"] <= 8
        assert seen["counted"]["flops_per_problem"] > seen["counted"]["num_parameters"]
