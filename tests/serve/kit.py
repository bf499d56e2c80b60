"""A whole service over a real store, without Ray: what the routes' tests talk to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from serve_app.api import create_api
from serve_app.context import Service
from serve_app.files import FileStorage
from serve_app.keys import Keyring
from serve_app.limits import RateLimiter
from serve_app.secrets import SecretBox
from serve_app.settings import Settings
from serve_app.store import jobs
from serve_app.store.database import Database
from serve_app.store.tables import Job

ROWS = b'{"messages": [{"role": "user", "content": "2+2?"}], "reference_answer": "4"}\n'
GRADER = {
    "type": "string_check",
    "name": "check",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.reference_answer }}",
    "operation": "eq",
}
BASE_MODEL = "ferrata-tiny"


class StillManager:
    """A manager that only counts how often it was nudged."""

    def __init__(self) -> None:
        self.num_nudges = 0
        self.state = {"ok": True, "detail": "does nothing"}

    def nudge(self) -> None:
        """Count."""
        self.num_nudges += 1

    def health(self) -> Mapping[str, Any]:
        """What the test set."""
        return self.state


class NoEngines:
    """Chat without an engine."""

    def __init__(self) -> None:
        self.state = {"ok": True, "detail": "no engine"}

    def health(self) -> Mapping[str, Any]:
        """What the test set."""
        return self.state


def whole_service(database: Database, folder: Path, **settings: Any) -> Service:
    """A service whose files lie in `folder`; no limit is in the way unless a test sets one."""
    defaults = {
        "requests_per_minute": 1_000_000,
        "max_open_jobs_per_project": 1000,
        "allow_hub_models": False,
    }
    made = Settings(
        data=folder,
        store=database.url.render_as_string(hide_password=False),
        **(defaults | settings),
    )
    return Service(
        settings=made,
        database=database,
        files=FileStorage(made, database),
        keyring=Keyring(database),
        secrets=SecretBox(made, database),
        limiter=RateLimiter(made),
        manager=StillManager(),
        chat=NoEngines(),
    )


class Tenant(TestClient):
    """A client with the key of a project of its own."""

    def __init__(self, service: Service, project: str, **options: Any) -> None:
        super().__init__(create_api(service), **options)
        self.service, self.project = service, project
        self.key = service.keyring.create_key(project, "test")[1]
        self.headers["authorization"] = f"Bearer {self.key}"
        caller = service.keyring.authenticate(self.key)
        assert caller is not None
        self.project_id = caller.project_id

    def upload(self, content: bytes = ROWS, purpose: str = "fine-tune") -> str:
        """Upload a file and return its id."""
        sent = {"file": ("rows.jsonl", content)}
        response = self.post("/v1/files", files=sent, data={"purpose": purpose})
        assert response.status_code == 200, response.text
        return response.json()["id"]

    def body(self, **fields: Any) -> dict[str, Any]:
        """The body of a create call that is right."""
        method = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}
        if "training_file" not in fields:
            fields["training_file"] = self.upload()
        return {"model": BASE_MODEL, "method": method, **fields}

    def create(self, **fields: Any) -> dict[str, Any]:
        """Create a job and return it."""
        response = self.post("/v1/fine_tuning/jobs", json=self.body(**fields))
        assert response.status_code == 200, response.text
        return response.json()

    def set_job(self, job_id: str, **columns: Any) -> None:
        """Change a job's row, as the manager would."""
        with self.service.database.write() as session:
            job = jobs.get_job(session, job_id, lock=True)
            assert job is not None
            for name, value in columns.items():
                setattr(job, name, value)

    def row(self, job_id: str) -> Job:
        """A job's row."""
        with self.service.database.read() as session:
            job = jobs.get_job(session, job_id)
        assert job is not None
        return job


def error_of(response: Any, status: int | None = None) -> dict[str, Any]:
    """The error of a response that has the envelope and nothing else, and an id."""
    if status is not None:
        assert response.status_code == status, response.text
    assert response.status_code >= 400
    assert response.headers["x-request-id"]
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"]
    return error
