"""What a finished job leaves: its model's row, its report's figures, its metrics as a CSV file."""

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session

from serve_app.job_state import JobStatus
from serve_app.model_names import fine_tuned_name
from serve_app.store.jobs import set_status
from serve_app.store.tables import Job, Model, StoredFile

REPORT_FILE, EXPORT_FOLDER = "report.json", "export"
PURPOSE = "fine-tune-results"
_FIRST = ("step", "stage", "train_mean_reward", "full_valid_mean_reward", "completion_tokens_mean")


class ResultStorage(Protocol):
    """Where result files are kept: `serve_app.files.FileStorage`."""

    def save(
        self,
        project_id: str,
        filename: str,
        purpose: str,
        chunks: Iterable[bytes],
        *,
        also: Callable[[Session, StoredFile], None] | None = None,
    ) -> StoredFile:
        """Keep the bytes; the file exists when `also` has run in its transaction."""
        ...


def read_report(job: Job) -> dict[str, Any] | None:
    """The driver's report; None when it cannot be seen from here."""
    try:
        return json.loads((Path(job.out) / REPORT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def results_name(job: Job) -> str:
    """File name of the job's metrics."""
    return f"{job.id}-step-metrics.csv"


def metrics_csv(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """CSV of the flat figures of every step; a figure that a step lacks is empty."""
    flat = [{k: v for k, v in row.items() if not isinstance(v, dict | list)} for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    header = [n for n in _FIRST if n in names] + [n for n in names if n not in _FIRST]
    yield _line(header)
    for row in flat:
        yield _line(["" if row.get(name) is None else row[name] for name in header])


def enter_success(
    session: Session, job: Job, report: dict[str, Any], file: StoredFile | None, organization: str
) -> None:
    """Give a locked job its model, its report's figures and its result file; it has succeeded."""
    name = fine_tuned_name(job, organization)
    if session.get(Model, name) is None:
        session.add(
            Model(
                name=name,
                project_id=job.project_id,
                job_id=job.id,
                kind="fine_tuned",
                path=str(Path(job.out) / EXPORT_FOLDER),
                created_at=int(time.time()),
            )
        )
    job.fine_tuned_model = name
    job.metrics = {
        **(job.metrics or {}),
        "heldout": report.get("rows", []),
        "best": report.get("best"),
        "skills": report.get("skills", {}),
        "regressions": report.get("regressions", []),
    }
    job.result_files = [file.id] if file is not None else []
    message = f"The job has succeeded; its model is {name}"
    set_status(session, job, JobStatus.SUCCEEDED, message=message)


def _line(values: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()
