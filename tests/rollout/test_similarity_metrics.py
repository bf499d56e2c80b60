"""Each metric has the value worked by hand."""

import math
import sys

import pytest
from tiny_wordnet import write_tiny_wordnet

from rollout.verifiers.similarity_metrics import has_wordnet, measure

SENTENCE = "the cat sat on the mat"


def value(metric: str, text: str, reference: str) -> float:
    """The metric of `text` against `reference`, without a child process."""
    argument = {"metric": metric, "text": text, "reference": reference}
    return measure(argument, lambda stage: None)


@pytest.mark.parametrize(
    ("metric", "text", "reference", "expected"),
    [
        ("fuzzy_match", "abcd", "abce", 0.75),  # 2 * 3 / 8
        # 5/6, 3/5, 2/4 and 1/3 of the n-grams of length 1 to 4 match: their geometric mean.
        ("bleu", SENTENCE, "the cat sat on a mat", (1 / 12) ** 0.25),
        ("bleu", "the cat sat on", SENTENCE, math.exp(1 - 6 / 4)),  # all match; 4 words for 6
        ("bleu", "entirely different words", SENTENCE, 0.0),
        ("gleu", "the cat", "the cat", 1.0),
        ("gleu", "a b c", "a b d", 0.5),  # 3 of 6 n-grams: a, b, a b
        ("rouge_1", "the cat", "the dog", 0.5),
        ("rouge_1", "cats", "cat", 0.0),  # not stemmed
        ("rouge_2", "the cat sat", "the cat ran", 0.5),
        ("rouge_3", "a b", "a b", 0.0),
        ("rouge_3", "a b c d", "a b c e", 0.5),
        ("rouge_4", "a b c d e", "a b c d f", 0.5),
        ("rouge_5", "a b c d e f", "a b c d e g", 0.5),
        ("rouge_l", "a b c d", "a x c d", 0.75),
        # The reference has 6 words, the text 3 of them: 2 * 1 * 0.5 / 1.5.
        ("rouge_l", "a b c", "a b c d e f", 2 / 3),
    ],
)
def test_a_metric_has_the_value_worked_by_hand(metric, text, reference, expected):
    assert value(metric, text, reference) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_l"])
def test_a_text_is_exactly_as_similar_to_itself_as_can_be(metric):
    assert value(metric, SENTENCE, SENTENCE) == 1.0


def test_meteor_counts_synonyms_and_needs_wordnet(tmp_path, monkeypatch):
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert has_wordnet() is False
    write_tiny_wordnet(tmp_path)
    assert has_wordnet()
    # All 4 words match in one chunk: 1 - 0.5 (1/4)^3.
    synonym = value("meteor", "the auto is quick", "the car is quick")
    assert synonym == pytest.approx(1 - 0.5 / 64)
    # Precision 3/3, recall 3/4: 10 P R / (R + 9 P) = 10/13, in one chunk: 1 - 0.5 (1/3)^3.
    shorter = value("meteor", "the auto is", "the car is quick")
    assert shorter == pytest.approx(10 / 13 * (1 - 0.5 / 27))


def test_wordnet_may_be_packed_as_it_is_downloaded_and_nltk_may_be_missing(tmp_path, monkeypatch):
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "wordnet.zip").write_bytes(b"PK\x05\x06" + bytes(18))  # an empty zip
    assert has_wordnet()
    monkeypatch.setitem(sys.modules, "nltk.data", None)  # as if it were not installed
    assert has_wordnet() is False
