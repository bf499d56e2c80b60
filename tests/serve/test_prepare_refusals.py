"""What a job is refused with: the code, the field, the line and the fix."""

import pytest
from conftest import MODEL

from serve.prepare_world import BASE, CLUSTER, MIXED, RFT, fault, row, rows, write
from serve_app.prepare import PrepareError, prepare


@pytest.mark.parametrize(
    ("training", "request_", "code", "param", "said"),
    [
        (
            [*rows(1000, 99), {"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}],
            RFT,
            "invalid_training_file",
            "training_file",
            "Example 100, message 2: 'role' is missing",
        ),
        (
            [*rows(1000, 12), "{not json"],
            RFT,
            "invalid_training_file",
            "training_file",
            "Example 13: is not JSON",
        ),
        (rows(1000, 9), RFT, "invalid_n_examples", "training_file", "9 examples, but at least 10"),
        (rows(1000, 1), RFT, "invalid_n_examples", "training_file", "1 example,"),
        ([row(1)] * 20, RFT, "invalid_n_examples", "training_file", "validation_file"),
        (
            MIXED,
            RFT | {"validation": [{"messages": []}]},
            "invalid_validation_file",
            "validation_file",
            "Example 1: `messages` is missing or empty",
        ),
        (
            MIXED,
            RFT | {"validation": rows(2005, 3)},
            "invalid_validation_file",
            "validation_file",
            "Example 1: the same problem stands in the training file, line 26",
        ),
        (
            MIXED,
            RFT | {"heldout": rows(2005, 3)},
            "invalid_heldout_file",
            "heldout_file",
            "the same problem stands in the training file",
        ),
        (
            [{"messages": [{"role": "user", "content": f"q{n}"}]} for n in range(20)],
            {},
            "missing_grader",
            "method",
            "add `reference_answer`",
        ),
        (
            [
                {
                    "messages": [{"role": "user", "content": f"q{n}"}],
                    "reference_answer": "a",
                }
                for n in range(20)
            ],
            RFT | {"srl": {}},
            "invalid_training_file",
            "training_file",
            "no problem is of a family that the solver knows",
        ),
        (
            rows(1000, 20),
            RFT | {"srl": {}, "num_examples": 0},
            "invalid_training_file",
            "training_file",
            "No row has `expert_steps`",
        ),
        (
            [{"input": {}, "preferred_output": [], "non_preferred_output": []}] * 20,
            RFT,
            "invalid_training_file",
            "training_file",
            "holds preference pairs",
        ),
        (
            [
                {
                    "messages": [
                        {"role": "user", "content": "q"},
                        {"role": "assistant", "content": "a"},
                    ]
                }
            ]
            * 20,
            RFT,
            "invalid_training_file",
            "training_file",
            "holds conversations",
        ),
        (
            MIXED,
            RFT | {"resources": {"num_engines": 9}},
            "insufficient_resources",
            "resources",
            "the job asks for 5.1 CPUs",
        ),
        (
            MIXED,
            RFT | {"resources": {"max_model_len": 1000}},
            "invalid_value",
            "resources.max_model_len",
            "holds 256 positions; lower it to 256",
        ),
        (
            MIXED,
            RFT | {"sampling": {"max_tokens": 300}},
            "invalid_value",
            "sampling.max_tokens",
            "leaves no room for a prompt",
        ),
        (
            MIXED,
            RFT | {"prompt": {"system": "é" * 4}},
            "invalid_value",
            "prompt.system",
            "no tokens for some of its characters",
        ),
        (
            [*rows(1000, 20), row(3000) | {"expert_steps": ["x" * 250, "y"]}],
            RFT,
            "invalid_training_file",
            "training_file",
            "Example 21: ",
        ),
        (
            MIXED,
            {
                "method": {
                    "type": "reinforcement",
                    "reinforcement": {
                        "grader": {
                            "type": "string_check",
                            "name": "s",
                            "input": "{{ sample.output_text }}",
                            "reference": "{{ item.wanted }}",
                            "operation": "eq",
                        }
                    },
                }
            },
            "invalid_training_file",
            "training_file",
            "item.wanted",
        ),
    ],
)
def test_what_is_wrong_is_said_with_code_field_line_and_fix(
    tmp_path, training, request_, code, param, said
):
    error = fault(tmp_path, training, **request_)
    assert (error.code, error.param) == (code, param)
    assert said in error.message
    assert str(tmp_path) not in error.message
    assert str(MODEL) not in error.message
    assert str(tmp_path) not in str(error.lines)


def test_the_first_bad_lines_are_listed_with_their_numbers(tmp_path):
    error = fault(tmp_path, [*rows(1000, 10), *["nonsense"] * 9], **RFT)
    assert [bad["line"] for bad in error.lines] == [11, 12, 13, 14, 15]
    assert error.lines[0]["message"].startswith("Example 11: is not JSON")


def test_an_error_survives_its_way_out_of_another_process(tmp_path):
    import pickle

    error = fault(tmp_path, rows(1000, 3), **RFT)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.code, again.message, again.param, again.lines) == (
        error.code,
        error.message,
        error.param,
        error.lines,
    )


def test_a_model_without_a_tokenizer_is_refused_by_its_name(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(PrepareError) as caught:
        prepare(
            BASE | RFT,
            tmp_path / "job",
            {"training": write(tmp_path / "t.jsonl", MIXED)},
            str(folder),
            CLUSTER,
        )
    assert (caught.value.code, caught.value.param) == ("invalid_model", "model")


def test_more_examples_without_srl_are_refused(tmp_path):
    request = RFT | {"more_examples": {"num_examples": 3}, "num_examples": 0}
    error = fault(tmp_path, rows(1000, 40), **request)
    assert error.param == "more_examples"
    assert "no row has `expert_steps` for SRL" in error.message
    for wrong, param in [
        ({"srl": None, "more_examples": {"num_examples": 3}}, "more_examples"),
        ({"more_examples": {"num_examples": 3, "teacher": {}}}, "more_examples.teacher"),
        ({"more_examples": {"num_examples": 3, "documents": ["x"]}}, "more_examples.documents"),
        ({"more_examples": {}}, "more_examples.num_examples"),
    ]:
        assert fault(tmp_path, MIXED, **RFT | wrong).param == param
