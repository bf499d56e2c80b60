"""The passages that matter for a problem: BM25 over the user's documents and solved examples."""

import sys
from collections.abc import Sequence
from typing import Any

from train.data import Row

MAX_PASSAGE_CHARS = 2000
NUM_PASSAGES = 3


def solved_examples(rows: Sequence[Row]) -> list[str]:
    """Rows that carry expert steps, as texts that a teacher can imitate."""
    texts = []
    for row in rows:
        if row.expert_steps and row.reference_answer is not None:
            steps = "\n".join(f"{n}. {step}" for n, step in enumerate(row.expert_steps, start=1))
            texts.append(f"Problem: {row.problem_text}\n{steps}\nAnswer: {row.reference_answer}")
    return texts


def split_document(text: str) -> list[str]:
    """A document's paragraphs, joined up to MAX_PASSAGE_CHARS and cut where one is longer."""
    passages: list[str] = []
    for paragraph in (p.strip() for p in text.split("\n\n")):
        pieces = [
            paragraph[k : k + MAX_PASSAGE_CHARS]
            for k in range(0, len(paragraph), MAX_PASSAGE_CHARS)
        ]
        for piece in pieces:
            if passages and len(passages[-1]) + len(piece) + 2 <= MAX_PASSAGE_CHARS:
                passages[-1] += f"\n\n{piece}"
            else:
                passages.append(piece)
    return passages


class Retriever:
    """Finds passages by BM25 (Robertson and Zaragoza, 2009), through bm25s."""

    def __init__(self, passages: Sequence[str], num_passages: int = NUM_PASSAGES) -> None:
        self._passages, self._num = list(passages), num_passages
        self._index = None
        if self._passages:
            self._index = _bm25s().BM25()
            self._index.index(self._tokens(self._passages), show_progress=False)

    def passages(self, problem: str) -> list[str]:
        """At most `num_passages` of those that share a word with the problem, best first."""
        if self._index is None:
            return []
        found, scores = self._index.retrieve(
            self._tokens([problem]),
            k=min(self._num, len(self._passages)),
            show_progress=False,
        )
        pairs = zip(found[0].tolist(), scores[0].tolist(), strict=True)
        return [self._passages[index] for index, score in pairs if score > 0]

    @staticmethod
    def _tokens(texts: list[str]):
        # Every word and number counts; problems are short, and stop words may be their point.
        return _bm25s().tokenize(texts, token_pattern=r"(?u)\w+", stopwords=[], show_progress=False)


def _bm25s() -> Any:
    """bm25s without numba: an engine of vLLM in the same process cannot be built beside that.

    vLLM looks through every loaded module for its kernels, and fails on what numba's llvmlite
    loads; without numba bm25s computes by numpy.
    """
    if "bm25s" in sys.modules or "numba" in sys.modules:
        import bm25s

        return bm25s
    sys.modules["numba"] = None  # type: ignore[assignment]  # an import of it is an ImportError
    try:
        import bm25s
    finally:
        del sys.modules["numba"]
    return bm25s
