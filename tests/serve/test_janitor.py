"""What is swept: folders of dead calls, and keys of creates that nobody will repeat."""

import os
import time

from sqlalchemy import func, select

from serve_app.files import FileStorage
from serve_app.janitor import KEYS_KEPT_S, TASK_IDLE_S, remove_idle_tasks, sweeps_of
from serve_app.store.idempotency import claim
from serve_app.store.tables import Idempotency


def test_only_the_folders_of_dead_calls_are_removed(tmp_path):
    for name in ("task-old", "task-new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("{}\n")
    long_ago = time.time() - TASK_IDLE_S - 60
    os.utime(tmp_path / "task-old", (long_ago, long_ago))
    (tmp_path / "journals").mkdir()
    for name in ("old", "new"):
        (tmp_path / "journals" / f"{name}.jsonl").write_text("{}\n")
    os.utime(tmp_path / "journals" / "old.jsonl", (long_ago, long_ago))
    assert remove_idle_tasks(tmp_path) == 2
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("**/*"))
    assert left == ["journals", "journals/new.jsonl", "task-new", "task-new/rows.jsonl"]


def test_keys_of_creates_are_forgotten_after_a_week(settings, database, project, tmp_path):
    for key, age_s in (("old", KEYS_KEPT_S + 60), ("new", 60.0)):
        with database.write() as session:
            claim(session, project, key, "hash").created_at = int(time.time() - age_s)
    for sweep in sweeps_of(FileStorage(settings, database), database, tmp_path):
        sweep()
    with database.read() as session:
        assert session.scalars(select(Idempotency.key)).all() == ["new"]
        assert session.scalar(select(func.count()).select_from(Idempotency)) == 1
