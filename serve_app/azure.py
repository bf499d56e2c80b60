"""Middleware: the paths that Azure's clients call lead to the same routes.

/openai/<path>, /openai/v1/<path> and /openai/deployments/<model>/<path> are read as /v1/<path>.
`?api-version=` is ignored: there is one version here, and the body of a completion names its model.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_AZURE = re.compile(r"/openai(?:/v1)?(?:/deployments/.+(?=/(?:chat/)?completions$))?(?=/)")


class AzurePaths:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request under its usual path."""
        if scope["type"] == "http":
            prefix = scope.get("root_path", "")  # where the whole application is mounted
            path = scope["path"].removeprefix(prefix)
            if found := _AZURE.match(path):
                scope = {**scope, "path": f"{prefix}/v1{path[found.end() :]}"}
        await self._app(scope, receive, send)
