"""A teacher on real vLLM engines: the embedded model, asked through Ray actors.

The model has never seen a teacher's instructions, so what it writes is no solution; that it is the
model's own text, the same again, counted, and never accepted, is what is looked at here.
"""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from conftest import MODEL
from pydantic import ValidationError

from rollout.verifiers.registry import parse_grader
from train.data import Row
from train.experts.by_teacher import parse_teacher, solve_by_teacher, teacher_of
from train.experts.engine_teacher import EngineTeacher, EngineTeacherSpec, TeacherStartError
from train.experts.teachers import EndpointTeacher, TeacherError

SMALL = {"kv_cache_gib": 0.25, "num_threads": 1, "max_tokens": 24}
CONVERSATIONS = [[{"role": "user", "content": f"{n:04d}:1sr,2li"}] for n in range(6)]


def spec(**fields: object) -> EngineTeacherSpec:
    return EngineTeacherSpec.model_validate({"model": str(MODEL), **SMALL, **fields})


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def teacher():
    with teacher_of(spec()) as made:
        yield made


def drafts(teacher: EngineTeacher, conversations: list, threads: int) -> list:
    """One draft of each conversation, seeded by its number."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(teacher.write, conversations, range(len(conversations))))


def test_a_draft_is_the_same_alone_as_among_others_and_differs_by_seed(teacher):
    together = drafts(teacher, CONVERSATIONS, threads=6)
    assert together == drafts(teacher, CONVERSATIONS, threads=1)
    assert len({draft.text for draft in together}) > 1
    others = {teacher.write(CONVERSATIONS[0], seed).text for seed in range(0, 24, 2)}
    assert len(others) > 1, "the seed decides what is drawn"


def test_tokens_are_those_of_the_rendered_conversation_and_of_the_sample(teacher):
    draft = teacher.write(CONVERSATIONS[0], 0)
    # <|user|>, twelve characters, <|assistant|>: the embedded model has a token for each.
    assert draft.prompt_tokens == 1 + len("0000:1sr,2li") + 1
    assert 0 < draft.completion_tokens <= 24
    assert (teacher.name, draft.model) == (f"engine:{MODEL}", str(MODEL))


def test_what_leaves_no_room_and_what_the_template_refuses_is_no_draft(teacher):
    with pytest.raises(TeacherError, match="the context holds 256") as caught:
        teacher.write([{"role": "user", "content": "1" * 300}], 0)
    assert caught.value.reason == "context_length"
    with pytest.raises(TeacherError) as caught:
        teacher.write([{"role": "user"}], 0)
    assert caught.value.reason == "template"
    assert teacher.write(CONVERSATIONS[0], 0).text, "the engine goes on"


def test_an_engine_that_is_killed_is_started_again_and_its_drafts_are_written(teacher):
    before = drafts(teacher, CONVERSATIONS, threads=6)
    pids = ray.get([engine.ready.remote() for engine in teacher._engines])
    with ThreadPoolExecutor(6) as pool:
        running = pool.map(teacher.write, CONVERSATIONS, range(6))
        os.kill(pids[0], signal.SIGKILL)
        assert list(running) == before
    assert ray.get(teacher._engines[0].ready.remote()) != pids[0]


def test_rows_are_asked_in_rounds_and_what_is_not_verified_is_not_accepted():
    rows = [
        Row(f"row:{n}", ({"role": "user", "content": f"{n:04d}:1sr"},), reference_answer="x")
        for n in range(4)
    ]
    grader = parse_grader({"type": "answer"})
    fields = spec(max_rounds=1, temperature=1.0)
    told = solve_by_teacher(rows, fields, grader=grader).summary()
    assert told["asked"] == 4
    assert told["accepted"] == 0
    assert told["rejected"] + told["dropped"] == 4
    assert told["reasons"] == {"there is no line `Answer: ...` after the steps": 4}
    assert told["completion_tokens"] > 0


def test_a_model_that_cannot_be_run_says_so_and_leaves_no_engine(tmp_path):
    with pytest.raises(TeacherStartError, match="cannot be read"), teacher_of(spec(model="./no")):
        pass
    shutil.copy(MODEL / "config.json", tmp_path / "config.json")
    with (
        pytest.raises(TeacherStartError, match="'mine' cannot be run") as caught,
        teacher_of(spec(model="mine"), str(tmp_path)),
    ):
        pass
    assert str(tmp_path) not in str(caught.value), "a service's folders are nobody's concern"
    with (
        pytest.raises(TeacherStartError, match="each takes 64 CPUs"),
        teacher_of(spec(cpus_per_engine=64.0, start_deadline_s=1.0)),
    ):
        pass


def test_the_kind_of_teacher_is_told_by_its_type():
    assert isinstance(parse_teacher({"type": "engine", "model": "m"}), EngineTeacherSpec)
    endpoint = parse_teacher({"base_url": "http://127.0.0.1:9/v1", "model": "m"})
    with teacher_of(endpoint) as made:
        assert isinstance(made, EndpointTeacher)
    with pytest.raises(ValidationError, match="base_url"):
        parse_teacher({"type": "engine", "model": "m", "base_url": "http://127.0.0.1:9/v1"})
