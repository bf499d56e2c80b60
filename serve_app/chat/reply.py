"""From what an engine sampled to what a client is shown, one choice at a time. Pure.

A choice's content is every turn's visible text, joined; its reasoning what stood in the think
blocks. Streamed or not, a client gets the same text: the pieces are made here and only here.
"""

from dataclasses import dataclass

from rollout.live import TokenLogprob, Update
from rollout.steps import visible_text
from rollout.types import Rollout
from serve_app.chat.text import TurnText, Watch
from serve_app.chat.types import Chunk, FinishReason


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """How the turns of a rollout become one text."""

    raw: bool = False  # /v1/completions: the sample as it is, tags included
    separator: str = "\n"  # between the visible texts of two turns
    # True: content is kept back until the rollout has ended, since only then it is known whether
    # the job's grader, which reads the last turn, reads the same from all turns joined.
    hold: bool = False


class Reply:
    """One choice in the making. `add` takes updates, `take` gives what may be sent."""

    def __init__(self, index: int, prompt_tokens: int, form: ReplyForm, stop: tuple[str, ...]):
        self.index, self._prompt_tokens, self._form = index, prompt_tokens, form
        self._stop = Watch(stop)
        self._turn = TurnText()
        self._turn_shown, self._any_shown = False, False
        self._turn_thought, self._any_thought = False, False
        self._content, self._reasoning = "", ""  # not yet taken
        self._logprobs: list[TokenLogprob] = []
        self._completion_tokens = 0
        self._rollout: Rollout | None = None
        self.finish: FinishReason | None = None  # None: sampling goes on

    def add(self, update: Update) -> None:
        """Enter what one engine step did. After it `finish` may be set: sample no further."""
        self._completion_tokens += update.num_tokens
        self._logprobs += update.logprobs
        shown, thought = self._split(update)
        self._content += self._stop.feed(shown)
        self._reasoning += thought
        if self._stop.found is not None:
            self.finish = "stop"
        elif update.rollout is not None:
            self._content += self._stop.rest
            self._rollout = update.rollout
            self.finish = "stop" if update.rollout.finished else "length"

    def in_question(self) -> tuple[str, str] | None:
        """(all turns joined, the last turn) when the grader has to say which one is shown."""
        rollout = self._rollout
        if not self._form.hold or rollout is None or not rollout.finished:
            return None
        last = visible_text(rollout.turns[-1].text)
        return None if last == self._content else (self._content, last)

    def settle(self, content: str) -> None:
        """Show `content`, one of the two in question."""
        self._content = content

    def take(self) -> Chunk | None:
        """What may be sent now and was not; None when there is nothing."""
        keep = self._form.hold and self.finish is None
        content = "" if keep else self._content
        ended = self.finish is not None
        if not (content or self._reasoning or self._logprobs or ended):
            return None
        chunk = Chunk(
            index=self.index,
            content=content,
            reasoning=self._reasoning,
            logprobs=tuple(self._logprobs),
            finish_reason=self.finish,
            prompt_tokens=self._prompt_tokens if ended else 0,
            completion_tokens=self._completion_tokens if ended else 0,
        )
        self._content = self._content if keep else ""
        self._reasoning, self._logprobs = "", []
        return chunk

    def _split(self, update: Update) -> tuple[str, str]:
        """(shown, thought) with what separates them from the earlier turns'."""
        if self._form.raw:
            return update.text, ""
        shown, thought = self._turn.feed(update.text)
        if update.turn is not None:
            more_shown, more_thought = self._turn.close()
            shown, thought = shown + more_shown, thought + more_thought
        if shown and not self._turn_shown:
            shown = (self._form.separator if self._any_shown else "") + shown
            self._turn_shown = self._any_shown = True
        if thought and not self._turn_thought:
            thought = ("\n" if self._any_thought else "") + thought
            self._turn_thought = self._any_thought = True
        if update.turn is not None:
            self._turn, self._turn_shown, self._turn_thought = TurnText(), False, False
        return shown, thought
