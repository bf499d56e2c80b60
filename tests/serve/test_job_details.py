"""What a job tells of itself: events as pages and as a stream, checkpoints, metrics, rollouts."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai.types.fine_tuning import FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from serve.kit import Tenant, error_of
from serve_app import event_stream
from serve_app.ids import new_id
from serve_app.job_state import JobStatus
from serve_app.store import jobs
from serve_app.store.events import add_event
from serve_app.store.tables import JobCheckpoint

JOBS = "/v1/fine_tuning/jobs"


@pytest.fixture
def job_id(tenant) -> str:
    """A job's id."""
    return tenant.create()["id"]


def add(tenant: Tenant, job_id: str, count: int, **fields) -> None:
    """Append events; with `step` they are metrics of that step and of those that follow."""
    first = fields.pop("step", None)
    with tenant.service.database.write() as session:
        job = jobs.get_job(session, job_id, lock=True)
        assert job is not None
        for number in range(count):
            if first is None:
                add_event(session, job, message=f"message {number}", **fields)
            else:
                step = first + number
                data = {"step": step, "train_mean_reward": step / 10}
                key = f"rlvr:{step}:metrics"
                add_event(session, job, message="Step", type="metrics", data=data, key=key)


def end(tenant: Tenant, job_id: str) -> None:
    """Let the job end."""
    with tenant.service.database.write() as session:
        job = jobs.get_job(session, job_id, lock=True)
        assert job is not None
        jobs.set_status(session, job, JobStatus.CANCELLED, message="The job was cancelled")


def parse(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-sent events, each as its fields; a comment is {"": text}."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields:
            yield fields
            fields = {}


class TestEvents:
    """Pages of events."""

    def test_events_are_read_by_the_stock_client_newest_first(self, tenant, job_id):
        add(tenant, job_id, 1, level="warn", data={"line": 3})
        add(tenant, job_id, 1, step=1)
        page = tenant.get(f"{JOBS}/{job_id}/events").json()
        found = [FineTuningJobEvent.model_validate(e, strict=True) for e in page["data"]]
        assert [event.type for event in found] == ["metrics", "message", "message"]
        assert [event.level for event in found] == ["info", "warn", "info"]
        assert found[0].data == {"step": 1, "train_mean_reward": 0.1}
        assert found[2].message == f"Created fine-tuning job: {job_id}"
        assert page["has_more"] is False

    def test_pages_continue_while_events_are_added(self, tenant, job_id):
        add(tenant, job_id, 30)
        first = tenant.get(f"{JOBS}/{job_id}/events").json()
        assert (len(first["data"]), first["has_more"]) == (20, True)
        add(tenant, job_id, 5)
        after = {"after": first["data"][-1]["id"], "limit": 100}
        second = tenant.get(f"{JOBS}/{job_id}/events", params=after).json()
        assert (len(second["data"]), second["has_more"]) == (11, False)
        ids = [event["id"] for event in first["data"] + second["data"]]
        assert len(set(ids)) == 31

    def test_a_cursor_of_another_job_is_a_400(self, tenant, job_id):
        other = tenant.create()["id"]
        theirs = tenant.get(f"{JOBS}/{other}/events").json()["data"][0]["id"]
        error = error_of(tenant.get(f"{JOBS}/{job_id}/events", params={"after": theirs}), 400)
        assert error["param"] == "after"


class TestStream:
    """Events as they happen."""

    def read(self, tenant: Tenant, job_id: str, **headers: str) -> list[dict[str, str]]:
        """The whole stream of a job that has ended."""
        url = f"{JOBS}/{job_id}/events?stream=true"
        with tenant.stream("GET", url, headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["x-request-id"]
            return [part for part in parse(response.iter_lines()) if "" not in part]

    def test_every_event_comes_once_in_order_and_then_done(self, tenant, job_id):
        add(tenant, job_id, 450)
        add(tenant, job_id, 1, step=1)
        end(tenant, job_id)
        parts = self.read(tenant, job_id)
        assert parts[-1] == {"data": "[DONE]"}
        events = [json.loads(part["data"]) for part in parts[:-1]]
        assert len(events) == len({event["id"] for event in events}) == 453
        assert [part["id"] for part in parts[:-1]] == [event["id"] for event in events]
        assert events[1]["message"] == "message 0"
        assert events[-1]["message"] == "The job was cancelled"
        assert parts[451]["event"] == "metrics"
        assert parts[0]["event"] == "message"

    def test_it_goes_on_after_the_last_event_that_was_seen(self, tenant, job_id):
        add(tenant, job_id, 3)
        end(tenant, job_id)
        whole = self.read(tenant, job_id)
        rest = self.read(tenant, job_id, **{"last-event-id": whole[2]["id"]})
        assert rest == whole[3:]
        assert self.read(tenant, job_id, **{"last-event-id": whole[-2]["id"]}) == whole[-1:]

    def test_events_arrive_while_the_job_runs(self, tenant, job_id, monkeypatch):
        monkeypatch.setattr(event_stream, "POLL_S", 0.01)
        monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 0.05)

        def work() -> None:
            for _ in range(3):
                time.sleep(0.2)
                add(tenant, job_id, 1)
            end(tenant, job_id)

        thread = threading.Thread(target=work)
        thread.start()
        with tenant.stream("GET", f"{JOBS}/{job_id}/events?stream=true") as response:
            parts = list(parse(response.iter_lines()))
        thread.join()
        comments = [part for part in parts if part.get("") == "keep-alive"]
        assert len(comments) >= 2  # the first, and at least one while nothing happened
        assert len(parts) - len(comments) == 1 + 3 + 1 + 1  # created, messages, the end, [DONE]

    def test_paging_a_stream_or_an_unknown_place_in_it_is_a_400(self, tenant, job_id):
        for params in ({"limit": 5}, {"after": "ftevent-x"}):
            url = f"{JOBS}/{job_id}/events"
            error = error_of(tenant.get(url, params={"stream": "true", **params}), 400)
            assert error["param"] == next(iter(params))
        headers = {"last-event-id": "ftevent-nothing"}
        error_of(tenant.get(f"{JOBS}/{job_id}/events?stream=true", headers=headers), 400)
        error_of(tenant.get(f"{JOBS}/ftjob-nothing/events?stream=true"), 404)


def add_checkpoints(tenant: Tenant, job_id: str, *steps: int, pruned: int | None = None) -> None:
    """Rows of checkpoints."""
    with tenant.service.database.write() as session:
        for step in steps:
            session.add(
                JobCheckpoint(
                    id=new_id("ftckpt_"),
                    job_id=job_id,
                    step_number=step,
                    stage="rlvr",
                    stage_step=step,
                    model=f"ft:ferrata-tiny:ferrata::{job_id[-8:]}:ckpt-step-{step}",
                    path="/x",
                    metrics={"train_mean_reward": 0.5, "full_valid_mean_reward": 0.25},
                    created_at=step,
                    pruned_at=9 if step == pruned else None,
                )
            )


def test_checkpoints_are_read_by_the_stock_client_without_those_that_were_given_up(tenant, job_id):
    add_checkpoints(tenant, job_id, 2, 4, 6, 8, pruned=4)
    url = f"{JOBS}/{job_id}/checkpoints"
    page = tenant.get(url, params={"limit": 2}).json()
    found = [FineTuningJobCheckpoint.model_validate(c, strict=True) for c in page["data"]]
    assert [checkpoint.step_number for checkpoint in found] == [8, 6]
    assert found[0].fine_tuning_job_id == job_id
    assert found[0].fine_tuned_model_checkpoint.endswith(":ckpt-step-8")
    assert (found[0].metrics.step, page["data"][0]["metrics"]["full_valid_mean_reward"]) == (
        8,
        0.25,
    )
    assert (page["first_id"], page["last_id"]) == (found[0].id, found[1].id)
    assert page["has_more"] is True
    rest = tenant.get(url, params={"after": found[1].id}).json()
    assert [checkpoint["step_number"] for checkpoint in rest["data"]] == [2]
    assert rest["has_more"] is False
    error_of(tenant.get(url, params={"after": "ftckpt_x"}), 400)


def test_a_job_without_checkpoints_has_an_empty_page(tenant, job_id):
    page = tenant.get(f"{JOBS}/{job_id}/checkpoints").json()
    empty = {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
    assert page == empty


def test_metrics_are_the_whole_curve_and_a_step_taken_again_stands_once(tenant, job_id):
    add(tenant, job_id, 3, step=1)
    add(tenant, job_id, 2)
    add(tenant, job_id, 2, step=3)
    curve = tenant.get(f"{JOBS}/{job_id}/metrics").json()["data"]
    assert [point["step"] for point in curve] == [1, 2, 3, 4]
    assert curve[2]["train_mean_reward"] == 0.3


class TestRollouts:
    """What the policy wrote."""

    @pytest.fixture
    def url(self, tenant, job_id) -> str:
        """The route, of a job with three steps of three rollouts each."""
        folder = Path(tenant.row(job_id).out) / "rollouts"
        folder.mkdir(parents=True)
        for stage, step in (("srl", 1), ("srl", 2), ("rlvr", 1)):
            rows = [
                {
                    "problem_id": f"p{n}",
                    "prompt": "2+2?",
                    "turns": ["one", "two"],
                    "reward": n / 2,
                    "reference_answer": "4",
                    "expert_step": "one" if stage == "srl" else None,
                }
                for n in range(3)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{stage}-{step:06d}.jsonl").write_text(text)
        (folder / ".srl-000003.jsonl").write_text("{")
        return f"{JOBS}/{job_id}/rollouts"

    def test_they_show_prompt_completion_and_reward_beside_the_experts_step(self, tenant, url):
        page = tenant.get(url, params={"stage": "srl", "step": 2}).json()
        assert [row["reward"] for row in page["data"]] == [0.0, 0.5, 1.0]
        row = page["data"][1]
        assert (row["prompt"], row["completion"], row["turns"]) == (
            "2+2?",
            "one\ntwo",
            ["one", "two"],
        )
        assert (row["stage"], row["step"], row["expert_step"]) == ("srl", 2, "one")
        assert page["has_more"] is False

    def test_pages_lead_through_all_of_them_newest_step_first(self, tenant, url):
        found, after = [], {}
        while True:
            page = tenant.get(url, params={"limit": 2, **after}).json()
            found += page["data"]
            if not page["has_more"]:
                break
            after = {"after": found[-1]["id"]}
        places = [(row["stage"], row["step"], row["reward"]) for row in found]
        steps = [("rlvr", 1), ("srl", 2), ("srl", 1)]
        assert places == [(*place, reward) for place in steps for reward in (0.0, 0.5, 1.0)]

    def test_wrong_questions_are_a_400(self, tenant, url):
        wrong = [{"step": 0}, {"stage": "../x"}, {"after": "rollout-x"}, {"limit": 101}]
        for params in wrong:
            assert error_of(tenant.get(url, params=params), 400)["param"] == next(iter(params))

    def test_a_job_that_has_not_sampled_yet_has_none(self, tenant):
        other = tenant.create()["id"]
        assert tenant.get(f"{JOBS}/{other}/rollouts").json()["data"] == []
