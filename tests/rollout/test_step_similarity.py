"""SRL's reward equals difflib's ratio without autojunk, only faster, and sees the turn's end."""

import difflib
import random
import string
import time
from statistics import median

import pytest
from pydantic import ValidationError

from rollout.types import FinishReason, Problem, Rollout, Turn, Verdict
from rollout.verifiers.step_similarity import StepSimilarityVerifier, step_similarity

ALPHABETS = ("ab", string.digits, string.ascii_lowercase + " ", "aé漢😀\n\x04 =")


def difflib_ratio(a: str, b: str) -> float:
    """The definition that the reward must equal."""
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def random_text(rng: random.Random, alphabet: str, length: int) -> str:
    """A string of `length` characters."""
    return "".join(rng.choices(alphabet, k=length))


def mutated(rng: random.Random, text: str, alphabet: str) -> str:
    """`text` with about a tenth of its characters replaced, removed or doubled."""
    out = []
    for char in text:
        roll = rng.random()
        out.append(rng.choice(alphabet) if roll < 0.04 else "" if roll < 0.07 else char)
        if roll > 0.97:
            out.append(char)
    return "".join(out)


def attempt(text: str, finish: FinishReason = "step_end") -> Rollout:
    """A one-turn rollout."""
    return Rollout("p", (Turn((1,), (2,), (-0.1,), text, finish, ((0, 1),)),))


def target(step: str | None, *, last: bool = False) -> Problem:
    """A one-step problem."""
    return Problem("train:3/step-2", "prompt", expert_step=step, expert_step_is_last=last)


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_similarity_equals_difflib_without_autojunk_on_unrelated_random_texts(alphabet):
    rng = random.Random(f"unrelated/{alphabet}")
    lengths = [(rng.randint(0, 400), rng.randint(0, 400)) for _ in range(12)]
    for len_a, len_b in [*lengths, (0, 0), (0, 400), (1, 1), (200, 0), (7, 300)]:
        a, b = random_text(rng, alphabet, len_a), random_text(rng, alphabet, len_b)
        assert step_similarity(a, b) == difflib_ratio(a, b), (a, b)


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_similarity_equals_difflib_without_autojunk_on_texts_that_nearly_agree(alphabet):
    rng = random.Random(f"related/{alphabet}")
    for length in (1, 2, 3, 10, 50, 150, 199, 200, 201, 300, 400):
        a = random_text(rng, alphabet, length)
        b = mutated(rng, a, alphabet)
        assert step_similarity(a, b) == difflib_ratio(a, b), (a, b)


def test_the_policys_step_comes_first_because_the_ratio_is_not_symmetric():
    assert step_similarity("tide", "diet") == 0.25
    assert step_similarity("diet", "tide") == 0.5


def test_the_verifier_too_puts_the_policys_step_first():
    assert StepSimilarityVerifier().verify(target("diet"), attempt("<think></think>tide")) == (
        Verdict(0.25, details={"exact": 0.0, "step_characters": 4.0})
    )


def test_two_empty_texts_are_alike_and_an_empty_one_is_like_no_other():
    assert step_similarity("", "") == 1.0
    assert step_similarity("", "a") == 0.0


def test_autojunk_ruins_the_reward_from_200_characters_on_and_is_off_by_default():
    expert = "12 + 34 = 46, " * 30
    policy = "x" + expert
    assert step_similarity(policy, expert, autojunk=True) == 0.0
    assert step_similarity(policy, expert) == 2 * 420 / 841
    short = expert[:199]
    assert step_similarity("x" + short, short, autojunk=True) == 2 * 199 / 399


def test_similarity_is_at_least_ten_times_faster_than_difflib_at_2000_characters():
    rng = random.Random("speed")
    alphabet = string.ascii_lowercase + " " * 5
    a = random_text(rng, alphabet, 2000)
    b = mutated(rng, a, alphabet)[:2000]

    def seconds(function, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            function(a, b)
            times.append(time.perf_counter() - start)
        return median(times)

    assert seconds(difflib_ratio, 3) >= 10 * seconds(step_similarity, 7)


def test_the_think_block_is_not_scored():
    problem = target("1sr=7390")
    short = StepSimilarityVerifier().verify(problem, attempt("<think>a</think>1sr=7390"))
    long = StepSimilarityVerifier().verify(problem, attempt(f"<think>{'b' * 999}</think>1sr=7390"))
    assert short.reward == long.reward == 1.0
    assert short.details == {"exact": 1.0, "step_characters": 8.0}
    assert not short.format_error


@pytest.mark.parametrize(
    "text", ["1sr=7390", "<think>a</think>", "<think>1sr=7390", "so <think>a</think>1sr=7390"]
)
def test_a_wrong_form_scores_minus_one_and_is_marked(text):
    verdict = StepSimilarityVerifier().verify(target("1sr=7390"), attempt(text))
    assert (verdict.reward, verdict.format_error) == (-1.0, True)


@pytest.mark.parametrize(
    ("finish", "last", "reward"),
    [
        ("end", True, 1.0),
        ("step_end", False, 1.0),
        ("end", False, 16 / 17),  # stops too early
        ("step_end", True, 16 / 17),  # goes on after the last step
        ("length", True, 16 / 17),  # cut off is not ended
        ("length", False, 1.0),
    ],
)
def test_ending_the_turn_at_the_wrong_step_costs_one_character(finish, last, reward):
    rollout = attempt("<think></think>1sr=7390", finish)
    verdict = StepSimilarityVerifier().verify(target("1sr=7390", last=last), rollout)
    assert verdict.reward == reward
    assert verdict.details["exact"] == float(reward == 1.0)


def test_white_space_around_either_step_does_not_count():
    rollout = attempt("<think>a</think>\n 1sr=7390 \n")
    verdict = StepSimilarityVerifier().verify(target("  1sr=7390\n"), rollout)
    assert verdict.reward == 1.0


def test_the_verifier_passes_its_autojunk_setting_on():
    expert = "12 + 34 = 46, " * 30
    rollout = attempt(f"<think></think>x{expert}")
    reward = StepSimilarityVerifier(autojunk=True).verify(target(expert), rollout).reward
    assert reward == 0.0
    assert StepSimilarityVerifier().verify(target(expert), rollout).reward > 0.99


def test_a_problem_without_an_expert_step_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="train:3/step-2 has no expert step"):
        StepSimilarityVerifier().verify(target(None), attempt("<think></think>a"))


def test_the_verifier_is_a_frozen_record_that_names_its_type_and_refuses_unknown_fields():
    verifier = StepSimilarityVerifier()
    assert verifier.type == "step_similarity"
    with pytest.raises(ValidationError, match="frozen"):
        verifier.autojunk = True
    with pytest.raises(ValidationError, match="nonsense"):
        StepSimilarityVerifier(nonsense=1)
