"""Conversations to prompts, by each model's own chat template, exactly as its job rendered rows."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from serve_app.chat.types import ChatModel

if TYPE_CHECKING:
    from train.prompts import PromptRenderer

MAX_RENDERERS = 8  # tokenizers kept; the least recently used one goes


class PromptError(ValueError):
    """A conversation that the model's chat template does not take; `param` names the field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class Prompts:
    """Renders on a thread of its own: loading a tokenizer takes a moment, and none is shared."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._renderers: OrderedDict[tuple[str, str | None], PromptRenderer] = OrderedDict()

    async def render(
        self, folder: str, model: ChatModel, prompt: Sequence[dict[str, str]] | str
    ) -> str:
        """Return the text that the model continues; a raw text is its own. Raises PromptError."""
        if isinstance(prompt, str):
            return prompt
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._render, folder, model, prompt)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _render(self, folder: str, model: ChatModel, messages: Sequence[dict[str, str]]) -> str:
        from jinja2 import TemplateError

        from train.data import Row

        renderer = self._renderer(folder, model)
        try:
            return renderer.render(Row("chat:1", tuple(messages)))
        except TemplateError as error:
            raise PromptError(
                f"the chat template of {model.name} does not take these messages: {error}",
                "messages",
            ) from None

    def _renderer(self, folder: str, model: ChatModel) -> "PromptRenderer":
        from transformers import AutoTokenizer

        from train.prompts import PromptRenderer
        from train.spec import PromptSpec

        key = (folder, model.system)
        if key not in self._renderers:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            try:
                renderer = PromptRenderer(tokenizer, PromptSpec(system=model.system))
            except ValueError:
                raise PromptError(
                    f"{model.name} has no chat template: use /v1/completions", "model"
                ) from None
            self._renderers[key] = renderer
        self._renderers.move_to_end(key)
        if len(self._renderers) > MAX_RENDERERS:
            self._renderers.popitem(last=False)
        return self._renderers[key]
