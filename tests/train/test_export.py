"""The card's code reads a model's samples as the engine does; the model here is a script."""

import re
from types import SimpleNamespace

import pytest
import torch

from train.export import CARD

EOS = 0


class ScriptedTokenizer:
    """One token per character; token 0 ends the turn."""

    eos_token_id = EOS

    def apply_chat_template(self, messages, **_):
        return messages[-1]["content"] + ">"

    def __call__(self, text, **_):
        return SimpleNamespace(input_ids=torch.tensor([[ord(c) for c in text]]))

    def decode(self, ids, **_):
        return "".join(chr(i) for i in ids.tolist() if i != EOS)


class ScriptedModel:
    """Continues with the next line of its script, whatever it is asked; notes the contexts."""

    def __init__(self, *pieces: str, eos: int | list[int] = EOS) -> None:
        self.pieces, self.contexts = list(pieces), []
        self.generation_config = SimpleNamespace(eos_token_id=eos)

    def generate(self, ids, max_new_tokens, **_):
        self.contexts.append("".join(chr(i) for i in ids[0].tolist()))
        piece = self.pieces.pop(0)[:max_new_tokens]
        return torch.cat([ids, torch.tensor([[ord(c) for c in piece]])], dim=1)


def solve(model: ScriptedModel, **changes):
    values = {
        "base": "b",
        "stages": "SRL",
        "protocol": "stepwise",
        "how": "",
        "system": None,
        "step_end": "\n",
        "stepwise": True,
        "max_tokens": 60,
        "max_turns": 3,
        "max_model_len": 200,
    }
    text = CARD.format(**values | changes)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    card: dict = {}
    exec(code[1], card)  # noqa: S102 (our own card)
    return card["solve"](model, ScriptedTokenizer(), "p")


def test_steps_enter_the_context_without_their_thinks_and_the_end_token_ends_the_solution():
    model = ScriptedModel("<think>x</think>a\n", "<think>y</think>b\0")
    assert solve(model) == "<think>y</think>b"
    assert model.contexts == ["p>", "p>a\n"]


def test_a_step_end_inside_an_open_think_block_does_not_close_the_step():
    model = ScriptedModel("<think>x\n", "y</think>a\n", "<think></think>b\0")
    assert solve(model) == "<think></think>b"
    assert model.contexts == ["p>", "p><think>x\n", "p>a\n"]


@pytest.mark.parametrize(
    "wrong",
    ["a\n", "<think>x</think>\n", "<think>x</think><think>y</think>a\n", "z<think>x</think>a\n"],
)
def test_a_step_that_training_would_call_malformed_ends_the_solution_without_an_answer(wrong):
    assert solve(ScriptedModel(wrong, "<think></think>b\0")) is None


def test_a_turn_that_is_cut_off_is_no_answer():
    assert solve(ScriptedModel("<think>x</think>" + "a" * 99), max_tokens=20) is None


def test_turns_beyond_the_limit_are_no_answer():
    assert solve(ScriptedModel("<think>x</think>a\n", "<think>y</think>b\0"), max_turns=1) is None


def test_any_of_several_end_tokens_ends_the_turn():
    model = ScriptedModel("<think>x</think>a\x01", eos=[EOS, 1])
    assert solve(model) == "<think>x</think>a\x01"


def test_under_the_single_protocol_one_generation_is_the_whole_solution():
    model = ScriptedModel("<think>x</think>a\n<think>y</think>b\0")
    assert solve(model, stepwise=False, max_turns=1) == "<think>x</think>a\n<think>y</think>b"
