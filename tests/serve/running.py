"""A service that answers on this machine without Ray: its routes and store, as `up` leaves it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from conftest import free_port

from serve.conftest import make_service
from serve_app.api import create_api
from serve_app.operator_key import operator_key
from serve_app.record import Record, write_record, write_settings
from serve_app.settings import Settings
from serve_app.store.database import Database


@contextmanager
def running_api(settings: Settings) -> Iterator[Path]:
    """Serve on a free port, with records and key in the data folder; yields that folder."""
    database = Database(settings.store_url)
    config = uvicorn.Config(
        create_api(make_service(settings, database)),
        host="127.0.0.1",
        port=free_port(),
        log_level="error",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    record = Record(state="running", mark="none", host="127.0.0.1", port=config.port)
    write_record(settings.data, record)
    write_settings(settings)
    operator_key(settings)
    yield settings.data
    server.should_exit = True
    thread.join()
    database.close()
