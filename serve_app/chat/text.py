"""Streams of text: find what must not be sent before it is sent. Pure, one piece at a time."""

from collections.abc import Iterator, Sequence

from rollout.steps import THINK_CLOSE, THINK_OPEN


class Watch:
    """Passes text on up to the first occurrence of one of `needles`.

    It holds back an end that may be the beginning of a needle, so what it passed on never has to
    be taken back.
    """

    def __init__(self, needles: Sequence[str]) -> None:
        self._needles = [needle for needle in needles if needle]
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """Return what may be passed on. After a find, what followed it waits in `rest`."""
        if self.found is not None:
            return ""
        text = self._held + text
        places = [(at, n) for n in self._needles if (at := text.find(n)) >= 0]
        if places:
            at, self.found = min(places, key=lambda place: place[0])
            self._held = text[at + len(self.found) :]
            return text[:at]
        keep = max((self._overlap(text, needle) for needle in self._needles), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    @property
    def rest(self) -> str:
        """What is held back, or what followed the find."""
        return self._held

    @staticmethod
    def _overlap(text: str, needle: str) -> int:
        """Length of the longest end of `text` that is a proper beginning of `needle`."""
        for length in range(min(len(text), len(needle) - 1), 0, -1):
            if text.endswith(needle[:length]):
                return length
        return 0


class TurnText:
    """Splits one turn into what is shown and what was thought, as it is sampled.

    The shown pieces joined are `rollout.steps.visible_text` of the whole turn, the thought ones
    what stood inside its think blocks.
    """

    def __init__(self) -> None:
        self._thinking = False
        self._watch = Watch([THINK_OPEN, THINK_CLOSE])
        self._hidden = Watch([THINK_OPEN])  # an opening tag that only the removal of blocks made
        self._started = False
        self._spaces = ""  # white space that is dropped if nothing follows

    def feed(self, text: str) -> tuple[str, str]:
        """Return (shown, thought) of the next piece."""
        shown, thought = "", ""
        for part in self._parts(text):
            if self._thinking:
                thought += part
            else:
                shown += self._show(part)
        return shown, thought

    def close(self) -> tuple[str, str]:
        """Return (shown, thought) of what was held back, at the end of the turn."""
        thought = self._watch.rest if self._thinking else ""
        shown = "" if self._thinking else self._show(self._watch.rest)
        if self._hidden.found is None:
            shown += self._trim(self._hidden.rest)
        return shown, thought

    def _parts(self, text: str) -> Iterator[str]:
        """The text between tags; changes `_thinking` at them."""
        while True:
            yield self._watch.feed(text)
            tag, text = self._watch.found, self._watch.rest
            if tag is None:
                return
            self._watch = Watch([THINK_OPEN, THINK_CLOSE])
            if tag == THINK_OPEN:
                self._thinking = True
            elif self._thinking:
                self._thinking = False
            else:
                yield tag  # a closing tag that closes nothing is shown

    def _show(self, text: str) -> str:
        return self._trim(self._hidden.feed(text))

    def _trim(self, text: str) -> str:
        """Drop white space at the turn's beginning, hold it back where it may be the end."""
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        text = self._spaces + text
        body = text.rstrip()
        self._spaces = text[len(body) :]
        return body
