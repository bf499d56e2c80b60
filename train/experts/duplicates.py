"""Exact and near duplicates among problems. Pure.

Two problems are the same when their texts are, but for case, width and white space. They are *near*
duplicates when they hold the same numbers in the same order, and the Jaccard similarity of their
shingles (runs of SHINGLE_WORDS words) reaches NEAR, without those that many problems of the set
share: an instruction that stands in every row makes no two of them alike. Other numbers, or the
same in another order, make another problem, however alike the words: sets made from templates
would lose most of their rows otherwise. A paraphrase in other words is not seen.

Every pair with the same numbers that shares a shingle is compared, through an inverted index:
exact at the sizes that a teacher is asked for, without MinHash's chance of a miss.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Set
from typing import Literal

SHINGLE_WORDS = 3
NEAR = 0.8
COMMON_SHARE, COMMON_LEAST = 0.2, 2  # of the texts, and at least more than so many
Kind = Literal["exact", "near"]
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d]+|[^\w\s]")


def normalised(text: str) -> str:
    """NFC, case folded, white space as single blanks."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The runs of SHINGLE_WORDS words, numbers and signs; of a shorter text, all of it."""
    words = _WORD.findall(normalised(text))
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(tuple(words[k : k + SHINGLE_WORDS]) for k in range(last))


def jaccard(one: frozenset, other: frozenset) -> float:
    """Size of the intersection over that of the union; 1 for two empty sets."""
    return len(one & other) / len(one | other) if one or other else 1.0


def common_shingles(texts: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """Those of more than COMMON_SHARE of the texts: a set's instructions, not its problems."""
    different = {normalised(text): text for text in texts}.values()
    counts = Counter(shingle for text in different for shingle in shingles(text))
    most = max(COMMON_LEAST, COMMON_SHARE * len(different))
    return frozenset(shingle for shingle, count in counts.items() if count > most)


class DuplicateIndex:
    """The problems seen so far. `common`: shingles that say nothing about a problem."""

    def __init__(
        self, texts: Iterable[str] = (), common: Set[tuple[str, ...]] = frozenset()
    ) -> None:
        self._exact: set[str] = set()
        self._common = common
        self._sets: list[frozenset] = []
        self._where: dict[tuple, list[int]] = {}  # by numbers and shingle
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Remember a problem."""
        self._exact.add(normalised(text))
        number, found = len(self._sets), shingles(text) - self._common
        self._sets.append(found)
        for shingle in found:
            self._where.setdefault((_numbers(text), shingle), []).append(number)

    def find(self, text: str) -> Kind | None:
        """What `text` is of a problem seen before; None: it is new."""
        if normalised(text) in self._exact:
            return "exact"
        found, numbers = shingles(text) - self._common, _numbers(text)
        shared = Counter(n for s in found for n in self._where.get((numbers, s), ()))
        if any(jaccard(found, self._sets[number]) >= NEAR for number in shared):
            return "near"
        return None


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+(?:[.,]\d+)*", normalised(text)))
