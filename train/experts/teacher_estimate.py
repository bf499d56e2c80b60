"""What a teacher would take, before it is asked anything: bounds, from the rows alone."""

from collections.abc import Callable, Sequence
from typing import Any

from rollout.types import Verifier
from train.data import Row
from train.experts.by_teacher import TeacherSpec, askable_rows
from train.experts.draft import ask, ask_again
from train.experts.generator import candidates
from train.experts.outcomes import Outcomes
from train.experts.retriever import Retriever, solved_examples, split_document
from train.experts.teachers import repair_of

CHARACTERS_PER_TOKEN = 4  # a rule of thumb for English; the teacher's own tokenizer may be unknown
REASON = "x" * 200  # as long as a verifier's reasons mostly are


def estimate_teacher(
    rows: Sequence[Row],
    spec: TeacherSpec,
    count: int,
    *,
    grader: Verifier | None = None,
    seed: int = 0,
    documents: Sequence[str] = (),
    count_tokens: Callable[[str], int] | None = None,
) -> dict[str, Any]:
    """Bounds as JSON values. `count_tokens` is the teacher's, where it is known.

    `first_drafts`: every first draft is accepted. `at_most`: every problem is asked in every round,
    in vain. Each draft is counted as long as `max_tokens`. `cost` is null without a price.
    Raises NothingToAskError.
    """
    solved = [row for row in rows if row.expert_steps]
    chosen, left_out = candidates([*solved, *askable_rows(rows, grader)], (), Outcomes(), seed)
    passages = [passage for text in documents for passage in split_document(text)]
    retriever = Retriever([*solved_examples(rows), *passages])
    counted = count_tokens or (lambda text: -(-len(text) // CHARACTERS_PER_TOKEN))

    def length(messages: Sequence[dict[str, str]]) -> int:
        return counted("\n".join(message["content"] for message in messages))

    first, repair = [], []
    for row in chosen:
        conversation = ask(row, retriever.passages(row.problem_text))
        first.append(length(conversation))
        repair.append(
            first[-1]
            if repair_of(spec.repair, spec.temperature) == "blind"
            else length(ask_again(conversation, "", REASON)) + spec.max_tokens
        )
    wanted = min(count, len(chosen))
    likely = sum(first) * wanted // len(first) if first else 0
    more_rounds = spec.max_rounds - 1
    return {
        "problems_to_choose_from": len(chosen),
        "left_out": left_out,
        "num_examples": wanted,
        "first_drafts": _bound(spec, likely, wanted),
        "at_most": _bound(
            spec, sum(first) + more_rounds * sum(repair), spec.max_rounds * len(chosen)
        ),
        "tokens_counted_by": "the teacher's tokenizer"
        if count_tokens
        else f"{CHARACTERS_PER_TOKEN} characters a token",
    }


def _bound(spec: TeacherSpec, prompt_tokens: int, drafts: int) -> dict[str, Any]:
    sampled = drafts * spec.max_tokens
    return {
        "drafts": drafts,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": sampled,
        "cost": spec.price and spec.price.cost(prompt_tokens, sampled),
    }
