"""What the tests of files share."""

from sqlalchemy import func, select

from serve_app.store.tables import StoredFile

ROWS = b'{"problem": 1}\n' * 1000
MIB = 2**20


def num_files(database) -> int:
    """How many rows there are."""
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(StoredFile))


def upload(client, content: bytes = ROWS, name: str = "rows.jsonl", **fields):
    """POST /v1/files."""
    fields = {"purpose": "fine-tune", **fields}
    return client.post("/v1/files", files={"file": (name, content)}, data=fields)
