"""Text similarity by the field's libraries. Runs in a child process, since long texts take long.

All values lie in [0, 1]. The sentence comes first, the reference second.
"""

from collections.abc import Callable
from typing import Any


def measure(argument: Any, _mark: Callable[[str], None]) -> float:
    """Compute {"metric", "text", "reference"}."""
    metric, text, reference = argument["metric"], argument["text"], argument["reference"]
    if metric == "fuzzy_match":
        from rapidfuzz.fuzz import ratio

        return ratio(text, reference) / 100
    if metric == "bleu":
        from sacrebleu import sentence_bleu

        return min(1.0, sentence_bleu(text, [reference]).score / 100)
    if metric == "gleu":
        from nltk.translate.gleu_score import sentence_gleu

        return float(sentence_gleu([reference.split()], text.split()))
    if metric == "meteor":
        from nltk.translate.meteor_score import meteor_score

        return float(meteor_score([reference.split()], text.split()))
    return _rouge(metric, text, reference)


def _rouge(metric: str, text: str, reference: str) -> float:
    """F-measure of `rouge_1` to `rouge_5` and `rouge_l`, stemmed not."""
    from rouge_score.rouge_scorer import RougeScorer

    name = metric.replace("_", "").replace("rougel", "rougeL")
    return float(RougeScorer([name]).score(reference, text)[name].fmeasure)


def has_wordnet() -> bool:
    """True when nltk and the WordNet data that METEOR needs are installed."""
    try:
        import nltk.data
    except ImportError:
        return False
    for place in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(place)
        except LookupError:
            continue
        return True
    return False
