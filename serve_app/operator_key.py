"""The command line's own key: made once per data folder, kept readable by its owner alone."""

from serve_app.record import OPERATOR_KEY, read_operator_key, write_private
from serve_app.settings import Settings

PROJECT, KEY_NAME = "default", "operator"


def operator_key(settings: Settings) -> str:
    """Return the key of the project "default" that is kept in `data/operator.key`.

    The store, brought to its newest schema here, keeps only hashes, so a kept key that it does not
    know (another store, or a revoked key) is replaced by a new one.
    """
    from serve_app.keys import Keyring
    from serve_app.store.database import Database
    from serve_app.store.migrate import migrate

    database = Database(settings.store_url)
    try:
        migrate(database)
        keyring = Keyring(database)
        key = read_operator_key(settings.data)
        if key is None or keyring.authenticate(key) is None:
            _, key = keyring.create_key(PROJECT, KEY_NAME)
            write_private(settings.data / OPERATOR_KEY, key + "\n")
        return key
    finally:
        database.close()
