"""The answer verifier reads the visible end of a rollout that ended itself."""

import pytest
from pydantic import ValidationError

from rollout.types import FinishReason, Problem, Rollout, Turn
from rollout.verifiers.answer import AnswerVerifier, normalise_answer

PROBLEM = Problem("train:7", "prompt", reference_answer="7390")


def attempt(*texts: str, finish: FinishReason = "end") -> Rollout:
    """A rollout whose turns have these texts; the last one finishes by `finish`."""
    reasons: list[FinishReason] = ["step_end"] * (len(texts) - 1) + [finish]
    turns = (
        Turn((1,), (2,), (-0.1,), text, reason, ((0, 1),))
        for text, reason in zip(texts, reasons, strict=True)
    )
    return Rollout("train:7", tuple(turns))


def score(verifier: AnswerVerifier, *texts: str, answer: str = "7390") -> tuple[float, bool]:
    """Reward and format error of a finished rollout."""
    verdict = verifier.verify(Problem("p", "", reference_answer=answer), attempt(*texts))
    return verdict.reward, verdict.format_error


def test_without_a_pattern_the_last_line_that_is_not_empty_is_the_answer():
    assert score(AnswerVerifier(), "first 1\n 7390 \n\n  ") == (1.0, False)
    assert score(AnswerVerifier(), "7390\nand more") == (0.0, False)
    assert score(AnswerVerifier(), "first\n7390\nand more") == (0.0, False)
    assert score(AnswerVerifier(normalise=False), "so\n  7390\t") == (1.0, False)


def test_with_a_pattern_the_last_match_is_the_answer():
    verifier = AnswerVerifier(pattern=r"=(\d{4})")
    assert score(verifier, "1sr=1111, 2li=7390") == (1.0, False)
    assert score(verifier, "1sr=7390, 2li=1111") == (0.0, False)
    assert score(verifier, "1sr=1111, 2li=7390, 3rs=2222") == (0.0, False)


def test_no_match_is_a_format_error_and_not_merely_a_wrong_answer():
    assert score(AnswerVerifier(pattern=r"=(\d{4})"), "7390") == (0.0, True)
    assert score(AnswerVerifier(), "  \n ") == (0.0, True)


def test_a_thought_answer_does_not_count():
    verifier = AnswerVerifier(pattern=r"=(\d{4})")
    assert score(verifier, "<think>=7390</think>none") == (0.0, True)
    assert score(verifier, "=1111<think>=7390") == (0.0, False)


def test_a_reader_sees_the_answer_that_is_judged():
    assert AnswerVerifier().read_last_turn("<think>1</think>so\n 7390 ") == "7390"


def test_only_the_last_turn_is_read():
    verifier = AnswerVerifier(pattern=r"=(\d{4})")
    assert score(verifier, "1sr=7390", "2li=0000") == (0.0, False)
    assert score(verifier, "1sr=0000", "2li=7390") == (1.0, False)
    assert score(verifier, "1sr=0000", "2li=7390", "3rs=1111") == (0.0, False)


@pytest.mark.parametrize("finish", ["length", "step_end"])
def test_a_rollout_that_did_not_end_itself_has_not_answered(finish):
    verdict = AnswerVerifier().verify(PROBLEM, attempt("7390", finish=finish))
    assert (verdict.reward, verdict.format_error) == (0.0, True)


def test_normalising_ignores_case_white_space_and_the_closing_full_stop():
    assert normalise_answer("  The\t CAT \n sat. ") == "the cat sat"
    assert normalise_answer("3.14") == "3.14"
    assert normalise_answer("to the MAX .") == "to the max"
    assert normalise_answer("X") == "x"
    assert score(AnswerVerifier(), "the  cat SAT.", answer="The cat sat") == (1.0, False)


def test_without_normalising_the_comparison_is_exact():
    exact = AnswerVerifier(normalise=False)
    assert score(exact, "the cat", answer="The cat") == (0.0, False)
    assert score(exact, "The cat", answer="The cat") == (1.0, False)


def test_a_problem_without_a_reference_answer_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="train:9 has no reference answer"):
        AnswerVerifier().verify(Problem("train:9", ""), attempt("7390"))


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("(", "is not a regular expression"),
        (r"\d+", "has 0 groups: put exactly one pair of parentheses"),
        (r"(\d)(\d)", "has 2 groups: put exactly one pair of parentheses"),
    ],
)
def test_an_unusable_pattern_is_refused_with_the_pattern_and_the_fix(pattern, complaint):
    with pytest.raises(ValidationError) as caught:
        AnswerVerifier(pattern=pattern)
    assert repr(pattern) in str(caught.value)
    assert complaint in str(caught.value)


def test_the_verifier_is_a_frozen_record_with_its_type_and_name_that_refuses_unknown_fields():
    verifier = AnswerVerifier()
    assert (verifier.type, verifier.name) == ("answer", "answer")
    assert verifier.needs_reference_answer
    with pytest.raises(ValidationError, match="frozen"):
        verifier.pattern = "(a)"
    with pytest.raises(ValidationError, match="nonsense"):
        AnswerVerifier(nonsense=1)
