"""The Serve application: `serve run serve_app.app:build data=/path`, and nothing but wiring."""

from typing import Any

import anyio.to_thread
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serve_app.api import create_api
from serve_app.manager import RayManagerLink, ensure_manager
from serve_app.service import open_service
from serve_app.serving import RayChatLink, chat_application
from serve_app.settings import Settings

# Streams of events stay open for as long as a job runs, so this is far above Serve's own default.
MAX_ONGOING_REQUESTS = 2000
CPUS_PER_REPLICA = 0.1  # logical: it mostly waits, and jobs need the machine


@serve.deployment(
    name="API",
    max_ongoing_requests=MAX_ONGOING_REQUESTS,
    ray_actor_options={"num_cpus": CPUS_PER_REPLICA},
)
@serve.ingress()
class API:
    """One replica of the HTTP door."""

    def __init__(self, settings: Settings, chat: DeploymentHandle) -> None:
        manager = RayManagerLink(settings)
        self._service = open_service(settings, manager, RayChatLink(chat))
        ensure_manager(settings)

    def __serve_build_asgi_app__(self) -> Any:
        """The application that this replica serves; Serve's proxy adds the request ids."""
        return create_api(self._service, request_id_header=False)

    async def check_health(self) -> None:
        """Fails, by Serve's deadline, when no thread is left to answer a request."""
        await anyio.to_thread.run_sync(lambda: None)


def build(args: Settings) -> Application:
    """Return the application that these settings describe."""
    api: Any = API
    return api.options(num_replicas=args.num_api_replicas).bind(args, chat_application(args))
