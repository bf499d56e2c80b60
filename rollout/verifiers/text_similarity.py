"""How similar are two texts? Metrics of well-kept libraries, or an embedding endpoint.

`fuzzy_match` is rapidfuzz's plain ratio, not its partial ones, which reward a text for merely
containing the reference. `cosine` needs an endpoint and `meteor` needs WordNet; where they are
missing the grader is refused by name.
"""

import json
import math
import operator
import os
from typing import Literal

from pydantic import PositiveInt, model_validator

from rollout.types import Problem, Rollout
from rollout.verifiers.base import (
    Grade,
    Grader,
    ModelGraderServerError,
    Seconds,
    TokenUsage,
    sample_of,
)
from rollout.verifiers.grader_keys import KeyName, read_key
from rollout.verifiers.http_json import HttpError, HttpUrl, Limits, post_json
from rollout.verifiers.process import CallOverrunError, call_within
from rollout.verifiers.similarity_metrics import has_wordnet
from rollout.verifiers.templates import Template, render_text

MEASURE = "rollout.verifiers.similarity_metrics:measure"
BASE_URL_VARIABLE = "FERRATA_GRADER_EMBEDDING_BASE_URL"
MODEL_VARIABLE = "FERRATA_GRADER_EMBEDDING_MODEL"
KEY_VARIABLE = "FERRATA_GRADER_EMBEDDING_API_KEY"

Metric = Literal[
    "cosine", "fuzzy_match", "bleu", "gleu", "meteor",
    "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l",
]  # fmt: skip


class TextSimilarityGrader(Grader):
    """Scores the similarity of `input` to `reference`: [0, 1], for `cosine` [-1, 1]."""

    type: Literal["text_similarity"] = "text_similarity"
    name: str = "text_similarity"
    input: Template
    reference: Template
    evaluation_metric: Metric
    # For `cosine`: an OpenAI-compatible endpoint. None: the worker's environment variables.
    base_url: HttpUrl | None = None
    embedding_model: str | None = None
    api_key_env: KeyName | None = None
    limits: Limits = Limits()
    deadline_s: Seconds = 10.0  # for one verdict of every other metric
    max_characters: PositiveInt = 50_000  # of the input; longer ones score 0 unread

    @model_validator(mode="after")
    def _can_be_measured(self) -> "TextSimilarityGrader":
        if self.evaluation_metric == "meteor" and not has_wordnet():
            raise ValueError(
                "evaluation_metric 'meteor' needs nltk's WordNet data, which is not installed here:"
                " install it (nltk.downloader wordnet), or choose 'rouge_l' or 'bleu'"
            )
        if self.evaluation_metric == "cosine" and not all(self._embedding()):
            raise ValueError(
                "evaluation_metric 'cosine' needs an embedding endpoint, and none is configured: "
                f"set {BASE_URL_VARIABLE} and {MODEL_VARIABLE}, or give `base_url` and "
                "`embedding_model`; or choose 'fuzzy_match'"
            )
        if self.base_url and self.api_key_env == KEY_VARIABLE:
            raise ValueError(f"{KEY_VARIABLE} is sent only to the address in {BASE_URL_VARIABLE}")
        return self

    def _embedding(self) -> tuple[str | None, str | None]:
        return (
            self.base_url or os.environ.get(BASE_URL_VARIABLE),
            self.embedding_model or os.environ.get(MODEL_VARIABLE),
        )

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        sample = sample_of(rollout)
        text = render_text(self.input, problem.item, sample)
        reference = render_text(self.reference, problem.item, sample)
        if not text.strip():
            return Grade(0.0, format_error=True)
        if len(text) > self.max_characters:
            return Grade(0.0, details={"too_long": 1.0})
        if self.evaluation_metric == "cosine":
            return self._cosine(text, reference)
        argument = {"metric": self.evaluation_metric, "text": text, "reference": reference}
        try:
            return Grade(call_within(MEASURE, argument, self.deadline_s))
        except CallOverrunError:
            # Acceptable: the text is so long that comparing it takes too long.
            return Grade(0.0, details={"timeout": 1.0})

    def _cosine(self, text: str, reference: str) -> Grade:
        base_url, model = self._embedding()
        try:
            key_name = self.api_key_env or (KEY_VARIABLE if self.base_url is None else None)
            headers, url, trusted = {}, f"{base_url}/embeddings", self.base_url is None
            if key_name and (self.api_key_env or os.environ.get(key_name)):
                headers["authorization"] = f"Bearer {read_key(key_name, url, trusted=trusted)}"
            body = json.dumps({"model": model, "input": [text, reference]}).encode()
            reply = post_json(url, body, lambda attempt: headers, self.limits, trusted=trusted)
            # In whatever order they come: the cosine is symmetric.
            left, right = ([float(x) for x in row["embedding"]] for row in reply["data"])
            value = cosine(left, right)
            tokens = int(reply.get("usage", {}).get("prompt_tokens", 0))
        except HttpError as error:
            raise ModelGraderServerError(str(error)) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelGraderServerError(f"{base_url} gave no two embeddings: {error!r}") from None
        return Grade(value, usage={str(model): TokenUsage(tokens)}, sampled_model_name=model)


def cosine(left: list[float], right: list[float]) -> float:
    """The cosine of the angle between two vectors. Raises ValueError when there is none."""
    if len(left) != len(right):
        raise ValueError(f"vectors of {len(left)} and {len(right)} numbers")
    norms = math.hypot(*left) * math.hypot(*right)
    if not norms or not math.isfinite(norms):
        raise ValueError("a vector without a direction")
    return sum(map(operator.mul, left, right)) / norms
