"""What every request has at hand: one `Service` per replica, found at `app.state.service`."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import Depends, Request

from serve_app.settings import Settings
from serve_app.store.database import Database

if TYPE_CHECKING:
    from serve_app.chat.types import ChatRequest, Item
    from serve_app.files import FileStorage
    from serve_app.keys import Keyring
    from serve_app.limits import RateLimiter
    from serve_app.secrets import SecretBox


class ManagerLink(Protocol):
    """The job manager, as the routes see it. Rows are the truth; a nudge only saves waiting."""

    def nudge(self) -> None:
        """Say that a job's row changed. Never raises: the manager looks by itself each second."""
        ...

    def health(self) -> Mapping[str, Any]:
        """{"ok": bool, "detail": str} about Ray and the manager. Never raises."""
        ...


class ChatLink(Protocol):
    """The engines that answer chat."""

    def stream(self, request: "ChatRequest") -> "AsyncGenerator[Item]":
        """Yield what the client is sent; a `Failure` is always the last item. Never raises."""
        ...

    def health(self) -> Mapping[str, Any]:
        """{"ok": bool, "detail": str} about the engines. Never raises."""
        ...


@dataclass(frozen=True)
class Service:
    """One replica's parts."""

    settings: Settings
    database: Database
    files: "FileStorage"
    keyring: "Keyring"
    secrets: "SecretBox"
    limiter: "RateLimiter"
    manager: ManagerLink
    chat: ChatLink


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    return request.app.state.service


ServiceOf = Annotated[Service, Depends(service_of)]
