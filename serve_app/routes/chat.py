"""`/chat/completions` and `/completions`: streamed or whole, on base and on trained models."""

import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.responses import JSONResponse, Response

from serve_app.auth import Calling
from serve_app.chat.bodies import ChatBody, CompletionBody
from serve_app.chat.models import chat_model
from serve_app.chat.types import ChatModel, ChatRequest, Chunk, Failure, Item
from serve_app.chat.wire import Answer, Pieces, whole_answer
from serve_app.context import Service, ServiceOf
from serve_app.errors import ApiError, bad_request, not_found
from serve_app.ids import new_id

router = APIRouter(tags=["chat"])


@router.post("/chat/completions")
async def create_chat_completion(body: ChatBody, service: ServiceOf, caller: Calling) -> Response:
    """Answer a conversation. A model trained stepwise runs its step loop here, as in training."""
    model = await run_in_threadpool(_find, service, caller.project_id, body.model)
    request = body.request(new_id("chatcmpl-"), model)
    return await _answer(service, request, include_usage=body.include_usage)


@router.post("/completions")
async def create_completion(body: CompletionBody, service: ServiceOf, caller: Calling) -> Response:
    """Continue raw texts: one generation each, no chat template."""
    model = await run_in_threadpool(_find, service, caller.project_id, body.model)
    request = body.request(new_id("cmpl-"), model)
    return await _answer(service, request, include_usage=body.include_usage)


def _find(service: Service, project_id: str, name: str) -> ChatModel:
    if service.settings.max_chat_engines == 0:
        raise bad_request(
            "This service serves no models: its max_chat_engines is 0", code="chat_disabled"
        )
    with service.database.read() as session:
        model = chat_model(service.settings, session, project_id, name)
    if model is None:
        raise not_found(
            f"The model {name!r} does not exist or you do not have access to it",
            param="model",
            code="model_not_found",
        )
    return model


async def _answer(service: Service, request: ChatRequest, *, include_usage: bool) -> Response:
    """Ask the engines. What fails before the first piece is an error, streamed or not."""
    answer = Answer(request, int(time.time()))
    items = service.chat.stream(request)
    if request.stream:
        first = await anext(items, [])
        if isinstance(first, Failure):
            raise _error(first)
        pieces = Pieces(answer, include_usage=include_usage)
        return StreamingResponse(
            _events(pieces, first, items),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
    chunks: list[Chunk] = []
    async with contextlib.aclosing(items):
        async for item in items:
            if isinstance(item, Failure):
                raise _error(item)
            chunks += item
    return JSONResponse(whole_answer(answer, chunks))


async def _events(
    pieces: Pieces, first: list[Chunk], items: AsyncGenerator[Item]
) -> AsyncIterator[str]:
    """Server-sent events. A failure under way is one event in the error's envelope, the last."""
    async with contextlib.aclosing(items):  # a client that leaves frees its place
        for piece in pieces.opening():
            yield _event(piece)
        for chunk in first:
            yield _event(pieces.add(chunk))
        async for item in items:
            if isinstance(item, Failure):
                yield _event(_error(item).body())
                return
            for chunk in item:
                yield _event(pieces.add(chunk))
    for piece in pieces.closing():
        yield _event(piece)
    yield "data: [DONE]\n\n"


def _event(piece: dict[str, Any]) -> str:
    return f"data: {json.dumps(piece, ensure_ascii=False)}\n\n"


def _error(failure: Failure) -> ApiError:
    headers = {}
    if failure.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(failure.retry_after_s)))
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    return ApiError(
        failure.status,
        failure.message,
        type=kind,
        param=failure.param,
        code=failure.code,
        headers=headers,
    )
