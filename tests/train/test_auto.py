"""Automatic settings: what they are at known sizes, and that their reasons are told."""

from dataclasses import replace

import pytest
from conftest import MODEL

from train.auto.facts import ModelFacts, RowFacts, measure_rows, read_model_facts
from train.auto.limits import (
    choose_limits,
    choose_protocol,
    choose_step_end,
    system_prompt_fault,
)
from train.auto.resources import ResourceError, choose_resources, device_of
from train.auto.stages import Wishes, choose_sft, choose_stage, learning_rate
from train.data import Row
from train.spec import LearnerSpec, RolloutSpec, SFTSpec

TINY = ModelFacts(342_528, 3, 96, 3, 32, 103, 256)
SMALL = ModelFacts(134_515_008, 30, 576, 3, 64, 49152, 8192)
LARGE = ModelFacts(7_615_616_512, 28, 3584, 4, 128, 152_064, 32768)
ROWS = RowFacts(368, 254, 6, 30, 85, 17, has_thoughts=True)
TWO_CPUS = {"CPU": 2.0, "memory": 8e9, "node:10.0.0.1": 1.0, "node:__internal_head__": 1.0}
EIGHT_GPUS = {"CPU": 96.0, "GPU": 8.0, "memory": 1e12, "accelerator_type:H200": 1.0}


@pytest.mark.parametrize(
    ("stage", "parameters", "rate"),
    [
        ("srl", 340_000, 1e-4),
        ("rlvr", 340_000, 3e-4),
        ("srl", 7_000_000_000, 5e-7),
        ("rlvr", 7_000_000_000, 1e-6),
        ("rlvr", 10, 1e-3),  # bounded
        ("srl", 10**13, 1e-7),
    ],
)
def test_learning_rates_meet_the_two_known_sizes_and_stay_within_bounds(stage, parameters, rate):
    assert learning_rate(stage, parameters) == pytest.approx(rate)


@pytest.mark.parametrize("stage", ["sft", "srl", "rlvr"])
def test_a_larger_model_never_gets_a_higher_rate(stage):
    rates = [learning_rate(stage, 10**power) for power in range(5, 12)]
    assert rates == sorted(rates, reverse=True)


def stage(name="rlvr", said=None, wishes=None, **facts) -> tuple[dict, list[str]]:
    """A stage of the tiny model's job on CPUs."""
    known = {"num_problems": 368, "num_parameters": TINY.num_parameters, "device": "cpu"}
    return choose_stage(name, said or {}, wishes or Wishes(), **(known | facts))


def test_the_quickstarts_stages_come_out_of_pure_defaults():
    srl, _ = stage("srl", num_problems=254)
    rlvr, _ = stage("rlvr")
    wanted = {"groups_per_step": 32, "group_size": 8, "max_steps": 9, "eval_interval": 3}
    assert srl == wanted | {"learning_rate": 1e-4, "save_interval": 3, "std_threshold": 0.02}
    wanted = {"groups_per_step": 16, "group_size": 8, "max_steps": 30, "eval_interval": 5}
    assert rlvr == wanted | {"learning_rate": 3e-4, "save_interval": 5, "std_threshold": 0.0}


@pytest.mark.parametrize(
    ("wishes", "field", "value"),
    [
        (Wishes(batch_size=5), "groups_per_step", 5),
        (Wishes(n_epochs=3), "max_steps", 69),  # 3 times 368 problems in steps of 16
        (Wishes(learning_rate_multiplier=0.5), "learning_rate", 1.5e-4),
        (Wishes(compute_multiplier=2.0), "group_size", 16),
        (Wishes(compute_multiplier=1e-4), "group_size", 2),
        (Wishes(eval_interval=7), "eval_interval", 7),
    ],
)
def test_every_hyperparameter_is_honoured_and_told(wishes, field, value):
    fields, notes = stage(wishes=wishes)
    assert fields[field] == pytest.approx(value)
    assert notes


def test_few_problems_make_small_batches_and_many_do_not_make_endless_stages():
    assert stage(num_problems=3)[0]["groups_per_step"] == 3
    assert stage(num_problems=1_000_000)[0]["max_steps"] == 100


def test_what_is_said_is_kept_and_multipliers_act_on_it():
    said = {"max_steps": 2, "learning_rate": 1e-5, "group_size": 4, "groups_per_step": 9}
    wishes = Wishes(batch_size=5, learning_rate_multiplier=3.0, n_epochs=8)
    fields, _ = stage(said=said, wishes=wishes)
    assert (fields["max_steps"], fields["groups_per_step"], fields["group_size"]) == (2, 9, 4)
    assert fields["learning_rate"] == pytest.approx(3e-5)


def test_a_supervised_stage_is_complete():
    fields, notes = choose_sft({}, Wishes(n_epochs=2), num_examples=5, num_parameters=10**9)
    assert SFTSpec(**fields).num_epochs == 2
    assert fields["batch_size"] == 5
    assert "2 epochs of 5 examples" in notes[0]


def test_limits_come_from_what_the_experts_write():
    fields, max_model_len, notes = choose_limits({}, None, "stepwise", ROWS, TINY, "cpu")
    assert fields == {"protocol": "stepwise", "max_turns": 8, "max_tokens": 24}
    assert ROWS.context_tokens + 24 <= max_model_len <= 256
    assert "experts write at most 17 tokens" in notes[0]


def test_without_thoughts_there_is_room_to_think():
    rows = replace(ROWS, has_thoughts=False)
    assert choose_limits({}, None, "stepwise", rows, SMALL, "gpu")[0]["max_tokens"] == 24 + 256
    assert choose_limits({}, None, "stepwise", rows, TINY, "cpu")[0]["max_tokens"] == 24 + 32


def test_problems_without_steps_get_what_the_positions_leave():
    rows = RowFacts(100, 0, 0, 30, 30, 0, has_thoughts=False)
    fields, max_model_len, _ = choose_limits({}, None, "single", rows, TINY, "cpu")
    assert (fields["max_tokens"], max_model_len) == (226, 256)
    fields, max_model_len, _ = choose_limits({}, None, "single", rows, LARGE, "gpu")
    assert (fields["max_tokens"], max_model_len) == (2048, 2112)


def test_limits_that_are_said_are_kept():
    said = {"max_tokens": 10, "max_turns": 3}
    fields, max_model_len, _ = choose_limits(said, 128, "stepwise", ROWS, TINY, "cpu", 64)
    assert fields == {"protocol": "stepwise", **said}
    assert max_model_len == 128
    assert choose_limits(said, None, "stepwise", ROWS, TINY, "cpu", 64)[1] >= 85 + 64


@pytest.mark.parametrize(
    ("steps", "end"),
    [([], "\n"), (["a", "b\n"], "\n"), (["a\nb"], "\n\n"), (["a\n\nb", "c"], "\n\n\n")],
)
def test_a_step_end_stands_in_no_step(steps, end):
    assert choose_step_end(steps) == end


def test_steps_that_contain_every_step_end_leave_none():
    assert choose_step_end(["a\n\n\nb", "a\n---\nb"]) is None


def test_the_protocol_follows_the_rows():
    assert choose_protocol(has_steps=True)[0] == "stepwise"
    assert choose_protocol(has_steps=False)[0] == "single"


@pytest.mark.parametrize(
    ("written", "num_tokens", "lost", "said"),
    [
        ("<s>be brief<u>", 5, False, None),
        ("<u>", 5, False, "does not write system messages"),
        ("<s>be brief<u>", 5, True, "no tokens"),
        ("<s>be brief<u>", 33, False, "33 of the model's 256 positions"),
    ],
)
def test_a_system_prompt_that_the_model_cannot_take_is_named(written, num_tokens, lost, said):
    fault = system_prompt_fault("be brief", written, num_tokens, TINY, lost=lost)
    assert (fault is None) if said is None else (said in (fault or ""))


def resources(model=TINY, cluster=None, said=None, length=192, sequences=256):
    """Resources, as a job would get them."""
    return choose_resources(said or {}, cluster or TWO_CPUS, model, length, sequences)


@pytest.mark.parametrize(
    ("model", "cluster"), [(TINY, TWO_CPUS), (SMALL, TWO_CPUS), (LARGE, EIGHT_GPUS)]
)
def test_chosen_resources_are_whole_specifications_that_the_cluster_holds(model, cluster):
    fields, notes = resources(model, cluster)
    learner = LearnerSpec(**{k: v for k, v in fields.items() if k in LearnerSpec.model_fields})
    rollout = RolloutSpec(**{k: v for k, v in fields.items() if k in RolloutSpec.model_fields})
    cpus = learner.num_workers * learner.cpus_per_worker
    cpus += rollout.num_engines * rollout.cpus_per_engine
    cpus += rollout.num_verifiers * rollout.cpus_per_verifier
    gpus = learner.num_workers * learner.gpus_per_worker
    gpus += rollout.num_engines * rollout.gpus_per_engine
    assert cpus <= cluster["CPU"] + 1e-9
    assert gpus <= cluster.get("GPU", 0)
    assert notes[0].startswith("resources: ")


def test_cpus_mean_float32_and_few_sequences_for_larger_models():
    assert resources()[0]["dtype"] == "float32"
    assert resources()[0]["num_threads"] == 2
    assert resources(SMALL, sequences=512)[0]["max_num_seqs"] < resources()[0]["max_num_seqs"]
    assert resources(SMALL)[0]["micro_batch_tokens"] < resources()[0]["micro_batch_tokens"]


def test_gpus_mean_bfloat16_and_are_divided_between_learners_and_engines():
    fields, _ = resources(LARGE, EIGHT_GPUS)
    assert (fields["num_workers"], fields["num_engines"]) == (4, 4)
    assert (fields["gpus_per_worker"], fields["dtype"]) == (1.0, "bfloat16")
    one, _ = resources(SMALL, {"CPU": 16.0, "GPU": 1.0, "memory": 1e11})
    assert (one["gpus_per_worker"], one["gpus_per_engine"]) == (0.5, 0.5)


def test_a_client_may_decline_the_gpus_and_override_any_number():
    declined = {"gpus_per_worker": 0, "gpus_per_engine": 0}
    assert device_of(EIGHT_GPUS, declined) == "cpu"
    fields, notes = resources(cluster=EIGHT_GPUS, said=declined | {"num_threads": 3})
    assert (fields["dtype"], fields["num_threads"]) == ("float32", 3)
    assert "set by you: gpus_per_engine, gpus_per_worker, num_threads" in notes[0]


def test_a_model_that_no_worker_can_hold_is_refused_with_sizes_and_the_fix():
    with pytest.raises(ResourceError, match=r"7\.62B parameters takes 113\.5 GiB.*at most"):
        resources(LARGE, TWO_CPUS)


def test_facts_of_the_embedded_model_are_read_from_its_files():
    from transformers import AutoConfig

    assert read_model_facts(str(MODEL), AutoConfig.from_pretrained(MODEL)) == TINY


def test_a_model_without_files_is_counted_by_its_configuration(tmp_path):
    from transformers import AutoConfig

    facts = read_model_facts(str(tmp_path), AutoConfig.from_pretrained(MODEL))
    assert facts.num_parameters == TINY.num_parameters


def test_rows_are_measured_by_their_longest():
    message = ({"role": "user", "content": "pp"},)
    rows = [
        Row("t:1", message, "x", ("aaa", "bb"), ("tttt", "")),
        Row("t:2", ({"role": "user", "content": "pppp"},), "x"),
    ]
    facts = measure_rows(rows, lambda row, steps: row.problem_text + "".join(steps), len)
    tags = len("<think></think>") + 1
    assert facts == RowFacts(2, 2, 2, 4, 7, tags + 7, has_thoughts=True)


def test_threads_never_outnumber_the_cores_of_the_one_machine():

    sixteen = {"CPU": 16.0, "node:10.0.0.1": 1.0, "memory": 8 * 2.0**30}
    chosen = choose_resources({}, sixteen, TINY, 256, 256, cores=2)[0]
    assert (chosen["num_threads"], chosen["num_verifiers"]) == (2, 1)
    assert choose_resources({}, sixteen, TINY, 256, 256)[0]["num_threads"] == 8
    two_nodes = sixteen | {"node:10.0.0.2": 1.0}
    assert choose_resources({}, two_nodes, TINY, 256, 256, cores=2)[0]["num_threads"] == 8
