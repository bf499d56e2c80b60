"""Opens the parts of a service in one process: for a replica of the API."""

import os

from serve_app.context import ChatLink, ManagerLink, Service
from serve_app.files import FileStorage
from serve_app.keys import Keyring
from serve_app.limits import RateLimiter
from serve_app.secrets import SecretBox
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.migrate import migrate


def open_service(settings: Settings, manager: ManagerLink, chat: ChatLink) -> Service:
    """Return the service; its store is brought to the newest schema.

    From here on, graders that run in this process obey the settings' `grader_hosts`.
    """
    os.environ.update(settings.grader_environment)
    database = Database(settings.store_url)
    migrate(database)
    return Service(
        settings=settings,
        database=database,
        files=FileStorage(settings, database),
        keyring=Keyring(database),
        secrets=SecretBox(settings, database),
        limiter=RateLimiter(settings),
        manager=manager,
        chat=chat,
    )
