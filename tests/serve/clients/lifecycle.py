"""Runs inside a stock client's environment: a job's whole life on a running service.

With BASE_URL, API_KEY and DATA (a folder with train.jsonl, valid.jsonl, heldout.jsonl) in the
environment. Prints one JSON object of what the client saw.
"""

import json
import os
import time
from pathlib import Path

from openai import OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent

DEADLINE_S = 900
GRADER = {
    "type": "string_check",
    "name": "last line",
    "input": "{{ sample.output_text }}",
    "reference": "={{ item.reference_answer }}",
    "operation": "like",
}
FAST = {"groups_per_step": 4, "group_size": 4, "save_interval": 1}
EXTRA = {
    "heldout_file": None,
    "srl": {"max_steps": 3, **FAST},
    "rlvr": {"max_steps": 3, **FAST},
    "prompt": {"system": None},
    "sampling": {"protocol": "stepwise", "max_tokens": 24, "max_turns": 8},
    "evaluation": {"pass_k": 1},
    "resources": {"max_model_len": 256, "kv_cache_gib": 0.25, "num_verifiers": 1},
}
METHOD = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}
client = OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], timeout=120)
jobs = client.fine_tuning.jobs
seen = {"progress": [], "statuses": [], "stages": []}


def upload(name: str) -> str:
    """One of the files."""
    path = Path(os.environ["DATA"]) / f"{name}.jsonl"
    return client.files.create(file=path, purpose="fine-tune").id


def create(**fields):
    """A job of a few steps."""
    return jobs.create(
        model="ferrata-tiny",
        training_file=files["train"],
        validation_file=files["valid"],
        method=METHOD,
        seed=1,
        extra_body=EXTRA | {"heldout_file": files["heldout"]},
        **fields,
    )


def wait(job_id: str, what: str, holds):
    """Poll until `holds(job)`; note what is seen on the way."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        job = jobs.retrieve(job_id)
        seen["progress"].append(job.progress)
        for name, value in (("statuses", job.status), ("stages", job.stage)):
            if not seen[name] or seen[name][-1] != value:
                seen[name].append(value)
        if holds(job):
            return job
        assert job.status != "failed", job.error
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}: {job}"
        time.sleep(0.5)


def chat(model: str, prompt: str) -> list:
    """The same answer, whole and streamed."""
    asked = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
    whole = client.chat.completions.create(**asked)
    pieces, finish = [], None
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    text = whole.choices[0].message.content
    usage = whole.usage.completion_tokens > 0
    return [text, "".join(pieces), whole.choices[0].finish_reason, finish, usage, whole.model]


files = {name: upload(name) for name in ("train", "valid", "heldout")}
job = create(suffix="mine", metadata={"team": "x"})
seen["created"] = job.status
wait(job.id, "a checkpoint", lambda job: len(jobs.checkpoints.list(job.id).data) > 0)
jobs.pause(job.id)
wait(job.id, "the pause", lambda job: job.status == "paused")
before = [c.step_number for c in jobs.checkpoints.list(job.id)]
seen["paused_at"] = before
seen["resumed"] = jobs.resume(job.id).status
done = wait(job.id, "the end", lambda job: job.status == "succeeded")
seen["done"] = {
    "model": done.fine_tuned_model,
    "trained_tokens": done.trained_tokens,
    "finished": done.finished_at >= done.created_at,
    "results": len(done.result_files),
    "error": done.error,
}
events = list(jobs.list_events(job.id, limit=5))
seen["steps"] = [e.data["step"] for e in reversed(events) if e.type == "metrics"]
seen["event_ids"] = [len(events), len({e.id for e in events})]
seen["messages"] = [e.message for e in reversed(events)]
streamed = client.get(
    f"/fine_tuning/jobs/{job.id}/events",
    options={"params": {"stream": "true"}},
    cast_to=FineTuningJobEvent,
    stream=True,
    stream_cls=Stream[FineTuningJobEvent],
)
seen["streamed"] = [e.id for e in streamed] == [e.id for e in reversed(events)]
checkpoints = list(jobs.checkpoints.list(job.id))
seen["checkpoints"] = [[c.step_number, c.fine_tuned_model_checkpoint] for c in checkpoints]
seen["csv"] = client.files.content(done.result_files[0]).read().decode().splitlines()[0]
row = (Path(os.environ["DATA"]) / "heldout.jsonl").read_text().splitlines()[0]
prompt = json.loads(row)["messages"][0]["content"]
seen["chat"] = chat(done.fine_tuned_model, prompt)
seen["chat_checkpoint"] = chat(checkpoints[-1].fine_tuned_model_checkpoint, prompt)
seen["completion"] = (
    client.completions.create(
        model=done.fine_tuned_model, prompt=prompt, max_tokens=8, temperature=0
    )
    .choices[0]
    .finish_reason
)
seen["listed"] = done.fine_tuned_model in [m.id for m in client.models.list()]
second = create()
wait(second.id, "the second job's launch", lambda job: job.status == "running")
jobs.cancel(second.id)
seen["cancelled"] = wait(second.id, "the cancel", lambda job: job.status == "cancelled").status
print(json.dumps(seen))
