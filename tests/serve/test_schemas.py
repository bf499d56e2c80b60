"""Every field of the contract's create calls works, or is refused by name."""

import pytest

from serve_app.chat.bodies import ChatBody, CompletionBody
from serve_app.native_schemas import PolicyRequest
from serve_app.request_types import RequestError, parse_request
from serve_app.schemas import CreateJob, StartTraining

BASE = {"model": "ferrata-tiny", "training_file": "file-1"}
ANSWER = {"type": "answer"}
TEACHER = {"type": "endpoint", "base_url": "https://teacher.example/v1", "model": "m"}
ENGINE = {"type": "engine", "model": "m"}


def reinforcement(**hyperparameters: object) -> dict:
    """A method with a grader and these hyperparameters."""
    inner = {"grader": ANSWER, "hyperparameters": hyperparameters}
    return {"method": {"type": "reinforcement", "reinforcement": inner}}


def supervised(**hyperparameters: object) -> dict:
    """A supervised method with these hyperparameters."""
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}}


def stage(name: str, **fields: object) -> dict:
    """A reinforcement job with fields of one stage."""
    return {**reinforcement(), name: fields}


def refusal(body: object, model: type = CreateJob) -> RequestError:
    """The error that a body is answered with."""
    with pytest.raises(RequestError) as caught:
        parse_request(model, body)
    return caught.value


ACCEPTED = {
    "suffix": {"suffix": "my-model_1"},
    "seed": {"seed": 2147483647},
    "metadata": {"metadata": {str(i): "v" * 512 for i in range(16)}},
    "validation_file": {"validation_file": "file-2"},
    "heldout_file": {"heldout_file": "file-3"},
    "no integrations": {"integrations": []},
    "null everywhere": {
        "suffix": None,
        "seed": None,
        "metadata": None,
        "validation_file": None,
        "integrations": None,
        "hyperparameters": None,
        "method": None,
        "teacher": None,
        "early_stopping": None,
    },
    "reinforcement": reinforcement(
        batch_size=8,
        n_epochs=1,
        learning_rate_multiplier="auto",
        compute_multiplier=10,
        eval_interval=1,
        eval_samples=1,
        reasoning_effort="default",
    ),
    "srl alone": {"method": {"type": "srl", "srl": {"max_steps": 3, "title_context": True}}},
    "srl alone, with a grader": {"method": {"type": "srl", "srl": {"grader": ANSWER}}},
    "srl": stage(
        "srl",
        max_steps=4,
        group_size=8,
        learning_rate=1e-4,
        temperature=1.0,
        max_tokens=24,
        std_threshold=0.02,
        loss="dapo",
        max_staleness=0,
        protocol="stepwise",
        title_context=False,
        autojunk=True,
    ),
    "rlvr": stage(
        "rlvr",
        max_steps=4,
        group_size=8,
        learning_rate="auto",
        temperature=0.7,
        max_tokens=24,
        std_threshold=0.0,
        loss="rloo",
        max_staleness=0,
        protocol="single",
    ),
    "srl disabled": {**reinforcement(), "srl": None},
    "rlvr disabled": {**reinforcement(), "rlvr": None},
    "sft": {**reinforcement(), "sft": {"num_epochs": 2, "with_thoughts": True}},
    "teacher": {"teacher": TEACHER | {"max_tokens": 64}, "num_examples": 8},
    "teacher of its own": {"teacher": ENGINE | {"num_engines": 2, "dtype": "bfloat16"}},
    "model auto": {"model": "auto"},
    "resources auto": {"resources": "auto"},
    "resources": {"resources": {"num_workers": 2, "num_engines": 1, "dtype": "float32"}},
    "prompt": {"prompt": {"system": None, "step_end": "\n\n"}},
    "sampling": {"sampling": {"protocol": "stepwise", "max_tokens": 24, "max_turns": 8}},
    "evaluation": {"evaluation": {"pass_k": 8}},
    "num_examples": {"num_examples": 48},
    "num_examples auto": {"num_examples": "auto"},
}

REFUSED = {
    "model": {"model": ""},
    "suffix": {"suffix": "x" * 65},
    "suffix (form)": {"suffix": "a:b"},
    "suffix (empty)": {"suffix": ""},
    "seed": {"seed": 2147483648},
    "seed (kind)": {"seed": True},
    "metadata": {"metadata": {str(i): "" for i in range(17)}},
    "metadata.k": {"metadata": {"k": "v" * 513}},
    "metadata.n": {"metadata": {"n": 1}},
    "metadata.z": {"metadata": {"z": "a\0"}},
    "integrations": {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]},
    "method.type": {"method": {"type": "dpo"}},
    "method.type (supervised)": {"method": {"type": "supervised"}},
    "method.supervised": supervised(batch_size=8, n_epochs=1, learning_rate_multiplier=2),
    "method.dpo": {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}},
    "method.reinforcement": {"method": {"type": "reinforcement"}},
    "method.reinforcement.grader": {"method": {"type": "reinforcement", "reinforcement": {}}},
    "method.reinforcement.response_format": {
        "method": {
            "type": "reinforcement",
            "reinforcement": {"grader": ANSWER, "response_format": {"type": "json_schema"}},
        }
    },
    "method.reinforcement.hyperparameters.reasoning_effort": reinforcement(reasoning_effort="low"),
    "method.reinforcement.hyperparameters.compute_multiplier": reinforcement(
        compute_multiplier=1e-5
    ),
    "method.reinforcement.hyperparameters.eval_interval": reinforcement(eval_interval=0),
    "method.reinforcement.hyperparameters.eval_samples": reinforcement(eval_samples=0),
    "method.reinforcement.hyperparameters.batch_size": reinforcement(batch_size="8"),
    "method.reinforcement.hyperparameters.batch_size (most)": reinforcement(batch_size=257),
    "method.reinforcement.hyperparameters.n_epochs": reinforcement(n_epochs=51),
    "method.reinforcement.hyperparameters.learning_rate_multiplier": reinforcement(
        learning_rate_multiplier=0
    ),
    "method.reinforcement.hyperparameters.beta": reinforcement(beta=0.1),
    "hyperparameters": {"hyperparameters": {"n_epochs": 2}},
    "srl": {"method": {"type": "srl", "srl": {}}, "srl": {}},
    "srl.loss": stage("srl", loss="ppo"),
    "srl.max_staleness": stage("srl", max_staleness=1),
    "srl.protocol": stage("srl", protocol="single"),
    "srl.max_stepz": stage("srl", max_stepz=1),
    "rlvr.title_context": stage("rlvr", title_context=True),
    "rlvr.group_size": stage("rlvr", group_size=1),
    "rlvr.protocol": {**stage("rlvr", protocol="single"), "sampling": {"protocol": "stepwise"}},
    "rlvr": {**reinforcement(), "srl": None, "rlvr": None},
    "teacher": {"teacher": TEACHER, "srl": None},
    "teacher.base_url": {"teacher": {"model": "m"}},
    "teacher.max_rounds": {"teacher": TEACHER | {"max_rounds": 9}},
    "teacher.model": {"teacher": {"type": "engine"}},
    "teacher.num_enginez": {"teacher": ENGINE | {"num_enginez": 2}},
    "teacher.type": {"teacher": {"type": "solver"}},
    "teacher.api_key_env": {"teacher": TEACHER | {"api_key_env": "HOME"}},
    "model_selection": {"model_selection": {}},
    "early_stopping": {"early_stopping": {"patience": 3}},
    "budget": {"budget": {"usd": 3}},
    "warm_start": {"warm_start": {"job": "ftjob-1"}},
    "resources.num_worker": {"resources": {"num_worker": 2}},
    "prompt.step_end": {"prompt": {"step_end": ""}},
    "num_examples": {"num_examples": -1},
    "trainingType": {"trainingType": 1},
}


def without_auto(value: object) -> object:
    """The body with its "auto" values left out, `num_examples` aside."""
    if not isinstance(value, dict):
        return value
    return {
        k: without_auto(v)
        for k, v in value.items()
        if v != "auto" or k in ("model", "num_examples")
    }


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_field_that_works_is_accepted_and_kept_as_it_was_written(name):
    body = BASE | ACCEPTED[name]
    stored = parse_request(CreateJob, body).stored()
    assert without_auto(body) == stored
    assert parse_request(CreateJob, stored).stored() == stored


USER = {"role": "user", "content": "x"}


def test_the_word_auto_is_a_text_where_text_is_asked_for():
    auto = {"type": "text", "text": "auto"}
    for content in ("auto", [auto]):
        body = {"model": "m", "messages": [{"role": "user", "content": content}], "stop": "auto"}
        read = parse_request(ChatBody, body | {"tool_choice": "auto"})
        assert read.messages[0].plain() == {"role": "user", "content": "auto"}
        assert read.stop == ["auto"]
    assert parse_request(CompletionBody, {"model": "m", "prompt": "auto"}).prompt == ["auto"]


@pytest.mark.parametrize(
    ("body", "model", "param"),
    [
        (BASE | {"srll": "auto"}, CreateJob, "srll"),
        (BASE | {"budget": "auto"}, CreateJob, "budget"),
        ({"model": "m", "prompt": "p", "suffix": "auto"}, CompletionBody, "suffix"),
        ({"model": "m", "messages": [USER | {"name": "auto"}]}, ChatBody, "messages.0.name"),
    ],
)
def test_auto_hides_no_unknown_and_no_refused_field(body, model, param):
    assert refusal(body, model).param == param


def test_auto_where_nothing_can_choose_is_refused_by_name():
    with pytest.raises(RequestError) as caught:
        parse_request(PolicyRequest, {"model": "auto"})
    assert caught.value.param == "model"
    assert "'auto'" in caught.value.message and "give a value" in caught.value.message
    assert refusal(BASE | {"training_file": "auto"}).param == "training_file"
    graded = refusal(
        BASE | {"method": {"type": "reinforcement", "reinforcement": {"grader": "auto"}}}
    )
    assert graded.param == "method.reinforcement.grader" and "inferred" in graded.message
    kind = refusal(BASE | {"method": {"type": "auto"}})
    assert kind.param == "method.type" and "'auto'; choose 'supervised'" in kind.message
    assert parse_request(PolicyRequest, {"model": "m", "num_samples": "auto"}).num_samples == 4


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_does_not_work_is_refused_by_its_dotted_name(name):
    error = refusal(BASE | REFUSED[name])
    assert error.param == name.split(" (")[0]
    assert error.message.startswith(error.param)


# The contract's page, section "Jobs": every field of the create call.
CONTRACT = [
    *("model", "training_file", "validation_file", "suffix", "seed", "metadata", "integrations"),
    *("method", "hyperparameters", "srl", "rlvr", "sft", "teacher", "model_selection"),
    *("early_stopping", "budget", "warm_start", "resources"),
    *("method.type", "method.supervised", "method.dpo", "method.reinforcement", "method.srl"),
    *(
        f"method.{method}.hyperparameters.{name}"
        for method in ("supervised", "reinforcement")
        for name in ("batch_size", "learning_rate_multiplier", "n_epochs")
    ),
    *(
        f"method.reinforcement.hyperparameters.{name}"
        for name in ("reasoning_effort", "compute_multiplier", "eval_interval", "eval_samples")
    ),
    *("method.reinforcement.grader", "method.reinforcement.response_format"),
    *(
        f"{stage}.{name}"
        for stage in ("srl", "rlvr")
        for name in ("max_steps", "group_size", "learning_rate", "temperature", "max_tokens")
    ),
    *(
        f"{stage}.{name}"
        for stage in ("srl", "rlvr")
        for name in ("std_threshold", "loss", "max_staleness", "protocol")
    ),
    *("srl.title_context", "srl.autojunk"),
]


def paths(value: object, prefix: str = "") -> set[str]:
    """Every dotted path in a body."""
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, inner in value.items():
        found |= {prefix + key} | paths(inner, f"{prefix}{key}.")
    return found


@pytest.mark.parametrize("field", CONTRACT)
def test_every_field_of_the_contract_stands_in_one_of_the_tables(field):
    bodies = [BASE, *ACCEPTED.values(), *REFUSED.values()]
    assert any(field in paths(body) for body in bodies)


@pytest.mark.parametrize("body", [None, [], "text", {}])
def test_a_body_that_is_no_job_names_what_is_missing(body):
    error = refusal(body)
    assert error.param in (None, "model")


def test_a_teacher_that_is_to_write_nothing_is_refused():
    assert refusal(BASE | {"teacher": TEACHER, "num_examples": 0}).param == "num_examples"
    assert parse_request(CreateJob, BASE | {"num_examples": 0}).num_examples == 0
    assert parse_request(CreateJob, BASE | {"teacher": TEACHER}).teacher is not None


def test_null_disables_a_stage_and_absence_does_not():
    job = parse_request(CreateJob, BASE | {"srl": None})
    assert (job.disables("srl"), job.disables("rlvr"), job.asks("srl")) == (True, False, False)


def test_a_job_without_a_method_is_reinforcement():
    assert parse_request(CreateJob, BASE).kind == "reinforcement"


def test_start_training_takes_rows_or_a_file_and_becomes_a_create_call():
    rows = [{"messages": [{"role": "user", "content": "1+1"}]}] * 10
    start = parse_request(StartTraining, {"model": "m", "rows": rows, "grader": ANSWER})
    job = start.to_create("file-9")
    assert (job.training_file, job.kind, job.num_examples) == ("file-9", "reinforcement", "auto")
    inferred = parse_request(StartTraining, {"model": "m", "file": "file-1", "srl": None})
    job = inferred.to_create("file-1")
    assert (job.method, job.disables("srl")) == (None, True)
    neither, both = {"model": "m"}, {"model": "m", "rows": rows, "file": "file-1"}
    for body in (neither, both, {"model": "m", "rows": rows[:9]}, {"model": "m", "rows": []}):
        assert refusal(body, StartTraining).param == "rows"


def test_the_models_describe_themselves_for_the_documentation():
    schema = CreateJob.model_json_schema()
    assert {"model", "training_file", "srl", "resources"} <= set(schema["properties"])
