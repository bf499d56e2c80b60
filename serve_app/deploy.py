"""Hands the application to a running Ray cluster, or takes it back, in a process of its own.

`serve_app.cluster` runs `python -m serve_app.deploy start|withdraw` with a Request on standard
input. A process of its own, since `ray.init` and its settings belong to a whole process and since
the caller can end it at a deadline. What it deploys survives it: Serve's controller is detached.
"""

import contextlib
import importlib
import logging
import sys
from typing import Any

from pydantic import BaseModel, ConfigDict

from serve_app.record import read_record, write_record
from serve_app.settings import MANAGER_NAME, NAMESPACE, Settings

APPLICATION = "serve_app.app:build"
APP_NAME = "ferrata"


class Request(BaseModel):
    """What is asked of this process."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    application: str = APPLICATION  # "module:function" that takes Settings
    address: str  # of the cluster
    host: str
    port: int


def main() -> None:
    """Read the request and do what the only argument says; errors end it with one line."""
    import ray

    request = Request.model_validate_json(sys.stdin.read())
    cluster = ray.init(
        request.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING
    )
    if sys.argv[1] == "start":
        start(request, cluster.dashboard_url)
    else:
        withdraw(request)


def start(request: Request, dashboard: str | None) -> None:
    """Deploy the application, or a newer one in its place, and return when it runs."""
    import ray
    from ray import serve
    from ray.exceptions import RayActorError

    record = read_record(request.settings.data)
    if record is None:
        raise SystemExit(f"{request.settings.data} has no service.json: start with `ferrata up`")
    status = serve.status()
    if APP_NAME in status.applications and not record.deployed:
        raise SystemExit(
            f"this cluster already runs another service named {APP_NAME!r}: use that one, stop it, "
            "or start this one on a cluster of its own (leave --address out)"
        )
    if status.proxies:
        _check_door(request, f"http://{dashboard}")
    # Before the deployment: what is half deployed must be found and withdrawn as well.
    news = {
        "deployed": True,
        "started_serve": record.started_serve or not status.proxies,
        "dashboard": f"http://{dashboard}",
        "address": ray.get_runtime_context().gcs_address,
    }
    write_record(request.settings.data, record.model_copy(update=news))
    try:
        serve.start(
            proxy_location="HeadOnly", http_options={"host": request.host, "port": request.port}
        )
    except (RayActorError, TimeoutError) as error:
        # On a busy machine Serve may replace the first proxy; whether one answers is asked later.
        print(f"The HTTP proxy was slow to start: {error}")
    serve.run(_build(request), name=APP_NAME, route_prefix="/", blocking=False)


def withdraw(request: Request) -> None:
    """Take the application and its manager back; training jobs go on."""
    import ray
    from ray import serve

    record = read_record(request.settings.data)
    if record is None or not record.deployed:
        return
    # First the replicas, which would make the manager anew.
    if APP_NAME in serve.status().applications:
        serve.delete(APP_NAME)
    with contextlib.suppress(ValueError):  # no manager was made
        ray.kill(ray.get_actor(MANAGER_NAME, namespace=NAMESPACE), no_restart=True)
    if record.started_serve and not serve.status().applications:
        serve.shutdown()


def _build(request: Request) -> Any:
    module, _, function = request.application.partition(":")
    return getattr(importlib.import_module(module), function)(request.settings)


def _check_door(request: Request, dashboard: str) -> None:
    """Raises SystemExit when Serve already listens elsewhere: its address cannot be changed."""
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    options = ServeSubmissionClient(dashboard).get_serve_details()["http_options"]
    there = (options["host"], options["port"])
    if there != (request.host, request.port):
        raise SystemExit(
            f"Ray Serve already listens on {there[0]}:{there[1]} in this cluster, which cannot be "
            f"changed to {request.host}:{request.port} while it runs: pass "
            f"--host {there[0]} --port {there[1]}"
        )


if __name__ == "__main__":
    main()
