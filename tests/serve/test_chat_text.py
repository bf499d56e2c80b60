"""What is shown of a sample, piece by piece: the same as of the whole sample at once."""

import random

import pytest

from rollout.live import Update
from rollout.steps import visible_text
from rollout.types import FinishReason, Rollout, Turn
from rollout.verifiers.base import output_text
from serve_app.chat.reply import Reply, ReplyForm
from serve_app.chat.text import TurnText, Watch

PIECES = ["<think>", "</think>", "<thi", "nk>", "</", "think>", "<", " ", "\n", "a", "b=1", "", "é"]


def split(text: str, rng: random.Random) -> list[str]:
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(6)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def turn(text: str, finish: FinishReason = "end") -> Turn:
    return Turn((1,), (2,), (-0.5,), text, finish, ((0, 1),))


def updates(texts: list[str], rng: random.Random, finish: FinishReason = "end") -> list[Update]:
    """What an engine tells while it samples these turns."""
    turns = (*(turn(text, "step_end") for text in texts[:-1]), turn(texts[-1], finish))
    found = []
    for number, text in enumerate(texts):
        pieces = split(text, rng)
        for piece in pieces[:-1]:
            found.append(Update(0, piece, 1, (), None, None))
        whole = Rollout("p", turns) if number == len(texts) - 1 else None
        found.append(Update(0, pieces[-1], 1, (), turns[number], whole))
    return found


def run(reply: Reply, steps: list[Update]) -> tuple[str, str, list[str]]:
    """(content, reasoning, content pieces) of a reply, sampled until it finishes."""
    content, reasoning, pieces = "", "", []
    for update in steps:
        reply.add(update)
        if texts := reply.in_question():
            reply.settle(texts[0])
        if chunk := reply.take():
            content, reasoning = content + chunk.content, reasoning + chunk.reasoning
            pieces.append(chunk.content)
        if reply.finish is not None:
            break
    return content, reasoning, pieces


def test_the_pieces_shown_are_the_visible_text_of_the_whole_turn_however_it_is_cut():
    rng = random.Random(1)
    for _ in range(4000):
        text = "".join(rng.choices(PIECES, k=rng.randrange(9)))
        watcher, shown = TurnText(), ""
        for piece in split(text, rng):
            shown += watcher.feed(piece)[0]
        shown += watcher.close()[0]
        assert shown == visible_text(text), repr(text)


def test_the_content_of_a_reply_is_what_graders_call_the_output_text():
    rng = random.Random(2)
    for _ in range(2000):
        texts = ["".join(rng.choices(PIECES, k=rng.randrange(7))) for _ in range(4)]
        steps = updates(texts, rng)
        content, _, _ = run(Reply(0, 3, ReplyForm(), ()), steps)
        assert steps[-1].rollout is not None
        assert content == output_text(steps[-1].rollout), texts


def test_thoughts_are_told_apart_and_joined():
    texts = ["<think>one</think>a=1", "<think>two\n</think>\nb=2"]
    content, reasoning, _ = run(Reply(0, 3, ReplyForm(), ()), updates(texts, random.Random(3)))
    assert (content, reasoning) == ("a=1\nb=2", "one\ntwo\n")


@pytest.mark.parametrize("seed", range(20))
def test_a_stop_text_ends_the_reply_before_it_also_across_two_steps(seed):
    texts = ["<think>x\nb</think>a=1", "b=2", "c=3"]
    reply = Reply(0, 3, ReplyForm(), ("1\nb",))
    content, _, _ = run(reply, updates(texts, random.Random(seed)))
    assert (content, reply.finish) == ("a=", "stop")


def test_a_held_reply_sends_no_content_before_its_end_but_its_thoughts():
    texts = ["<think>one</think>a=1", "<think>two</think>b=2"]
    reply = Reply(0, 3, ReplyForm(hold=True), ())
    content, reasoning, pieces = run(reply, updates(texts, random.Random(4)))
    assert content == "a=1\nb=2"
    assert reasoning == "one\ntwo"
    assert [piece for piece in pieces if piece] == [content]


def test_what_was_cut_off_finishes_by_length_and_counts_every_sampled_token():
    steps = updates(["<think>x</think>a=1", "<think>never closed"], random.Random(5), "length")
    reply = Reply(7, 3, ReplyForm(), ())
    chunks = []
    for update in steps:
        reply.add(update)
        chunks += [chunk] if (chunk := reply.take()) else []
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    last = chunks[-1]
    assert (last.index, last.finish_reason, last.prompt_tokens) == (7, "length", 3)
    assert last.completion_tokens == len(steps)


def test_a_raw_reply_keeps_tags_and_white_space():
    content, reasoning, _ = run(
        Reply(0, 1, ReplyForm(raw=True), ()), updates([" <think>x</think> y\n"], random.Random(6))
    )
    assert (content, reasoning) == (" <think>x</think> y\n", "")


def test_a_watch_passes_on_what_only_looked_like_the_beginning_of_a_needle():
    watch = Watch(["abc", "bcd"])
    assert [watch.feed(piece) for piece in ("xa", "b", "x", "bc")] == ["x", "", "abx", ""]
    assert watch.rest == "bc"
    assert watch.feed("d!") == ""
    assert (watch.found, watch.rest) == ("bcd", "!")
