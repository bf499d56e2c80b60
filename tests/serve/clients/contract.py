"""Runs inside an environment that holds a stock OpenAI client and nothing of this project.

Usage: contract.py, with BASE_URL, API_KEY and ENDED_JOB in the environment. Prints one JSON object
of what the client read.
"""

import io
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import openai
from openai import AzureOpenAI, OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent

BASE_URL, KEY, ENDED = (os.environ[name] for name in ("BASE_URL", "API_KEY", "ENDED_JOB"))
ROW = b'{"messages": [{"role": "user", "content": "2+2?"}], "reference_answer": "4"}\n'
GRADER = {
    "type": "string_check",
    "name": "check",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.word }}",
    "operation": "eq",
}
METHOD = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}
client = OpenAI(base_url=BASE_URL, api_key=KEY)
jobs = client.fine_tuning.jobs
seen = {"version": openai.__version__}


def failure(call) -> dict:
    """What the client makes of an error."""
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "message": str(error),
            "param": error.param,
            "code": error.code,
            "type": error.type,
            "request_id": error.request_id,
        }
    raise AssertionError("the call did not fail")


def files() -> str:
    """Upload in each way, read back, list, delete; return a training file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(ROW)
        file = client.files.create(file=path, purpose="fine-tune")
    named = client.files.create(file=("x.jsonl", ROW), purpose="fine-tune")
    stream = client.files.create(file=io.BytesIO(ROW), purpose="fine-tune")
    seen["files"] = [file.filename, named.filename, stream.filename, file.status, file.bytes]
    seen["content"] = client.files.content(file.id).read().decode()
    seen["listed_files"] = len({f.id for f in client.files.list(limit=2)})
    seen["deleted"] = client.files.delete(named.id).deleted
    seen["gone"] = failure(lambda: client.files.retrieve(named.id))
    return file.id


def create(file: str, client: OpenAI = client, **fields):
    """A job."""
    return client.fine_tuning.jobs.create(
        model="ferrata-tiny",
        training_file=file,
        method=METHOD,
        extra_body={"srl": {"max_steps": 2}, "rlvr": {"max_steps": 3}},
        **fields,
    )


def lifecycle(file: str) -> None:
    """Create, read, pause, resume, cancel, and the errors on the way."""
    job = create(file, seed=5, metadata={"a": "b"}, suffix="mine")
    extras = [job.srl, job.rlvr, job.stage, job.progress]
    seen["job"] = [job.status, job.seed, job.metadata, job.method.type, job.fine_tuned_model]
    seen["extras"] = extras
    seen["same"] = jobs.retrieve(job.id).id == job.id
    seen["states"] = [jobs.pause(job.id).status, jobs.resume(job.id).status]
    seen["states"] += [jobs.cancel(job.id).status]
    seen["wrong_state"] = failure(lambda: jobs.pause(job.id))
    seen["unknown"] = failure(lambda: jobs.retrieve("ftjob-nothing"))
    seen["wrong_model"] = failure(
        lambda: jobs.create(model="nothing", training_file=file, method=METHOD)
    )
    seen["wrong_field"] = failure(lambda: create(file, extra_query={}, seed=-1))
    bad = OpenAI(base_url=BASE_URL, api_key="sk-ferrata-wrong")
    seen["wrong_key"] = failure(lambda: bad.models.list())
    conflict = {"extra_headers": {"Idempotency-Key": f"once-{openai.__version__}"}}
    first = create(file, **conflict)
    seen["idempotent"] = create(file, **conflict).id == first.id
    seen["conflict"] = failure(lambda: create(file, seed=9, **conflict))


def lists(file: str) -> None:
    """Pages that the client turns by itself."""
    made = [create(file).id for _ in range(12)]
    seen["paged_jobs"] = [j.id for j in jobs.list(limit=5)][:12] == made[::-1]
    seen["events"] = [e.type for e in jobs.list_events(ENDED, limit=2)]
    seen["checkpoints"] = [
        [c.step_number, c.fine_tuned_model_checkpoint]
        for c in jobs.checkpoints.list(ENDED, limit=1)
    ]
    seen["models"] = [m.id for m in client.models.list()]
    seen["model"] = client.models.retrieve("ft:owner/base:ferrata::abcd1234").id


def stream() -> None:
    """The events of a job that has ended, by the client's own stream."""
    events = client.get(
        f"/fine_tuning/jobs/{ENDED}/events",
        options={"params": {"stream": "true"}},
        cast_to=FineTuningJobEvent,
        stream=True,
        stream_cls=Stream[FineTuningJobEvent],
    )
    seen["streamed"] = [[type(e).__name__, e.type, e.message] for e in events]


def graders() -> None:
    """Validate and run."""
    alpha = client.fine_tuning.alpha.graders
    seen["validated"] = alpha.validate(grader=GRADER).grader.name
    run = alpha.run(grader=GRADER, model_sample="yes", item={"word": "yes"})
    seen["graded"] = [run.reward, run.metadata.errors.other_error, run.metadata.name]
    wrong = GRADER | {"operation": "is"}
    seen["wrong_grader"] = failure(lambda: alpha.validate(grader=wrong))


def azure(file: str) -> None:
    """The same service, called by Azure's client."""
    with AzureOpenAI(
        azure_endpoint=BASE_URL.removesuffix("/v1"), api_key=KEY, api_version="2025-04-01-preview"
    ) as other:
        job = create(file, client=other)
        seen["azure"] = [
            other.fine_tuning.jobs.retrieve(job.id).id == job.id,
            other.fine_tuning.jobs.cancel(job.id).status,
            other.files.retrieve(file).id == file,
            len(other.fine_tuning.jobs.list(limit=1).data),
            failure(lambda: other.fine_tuning.jobs.retrieve("ftjob-x"))["code"],
        ]


training_file = files()
lifecycle(training_file)
lists(training_file)
stream()
graders()
azure(training_file)
print(json.dumps(seen))
