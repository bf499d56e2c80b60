"""A Serve application that only says that it is well: for tests of the service's life alone."""

import os

from fastapi import FastAPI
from ray import serve

from serve_app.settings import Settings

api = FastAPI()


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
@serve.ingress(api)
class Tiny:
    """Answers health, with the data folder so that two services can be told apart."""

    def __init__(self, data: str) -> None:
        self.data = data

    @api.get("/healthz")
    def health(self) -> dict[str, str]:
        """Well, always."""
        return {"status": "ok", "data": self.data, "pid": str(os.getpid())}


def build(settings: Settings):
    """What `serve_app.app.build` is to the service."""
    return Tiny.bind(str(settings.data))


def build_nothing(settings: Settings):
    """An application that cannot be built."""
    raise RuntimeError(f"no application for {settings.organization}")
