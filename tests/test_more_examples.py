"""Solutions of what SRL left weak, written between two SRL stages of a job."""

import collections
import json
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import JOB
from job_world import DEADLINE_S, run, small_job, start, train_steps
from safetensors.torch import load_file
from servers import Answer, completion, serve

from rollout.types import Problem, Rollout, Verdict
from train import more_examples
from train.claim import claim
from train.data import DataError, read_rows
from train.events import read_events
from train.experts.families import solve
from train.experts.outcomes import Outcomes
from train.more_examples import MoreExamples, is_measured, rows_with_more
from train.preflight import check_job, resources_asked
from train.spec import SpecError
from train.spec_file import load_spec

SHORT = (
    "srl.max_steps=2",
    "srl.eval_interval=2",
    "srl.groups_per_step=8",
    "rlvr=null",
    "more_examples={num_examples: 10, num_problems: 24, num_samples: 4, max_steps: 1}",
)


def by_skill(tmp: Path, count: int = 120) -> Path:
    """The quickstart's first rows; those whose number starts with an even digit are `even`."""
    lines = (JOB.parent / "train.jsonl").read_text().splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["skill"] = "odd" if int(row["messages"][0]["content"][0]) % 2 else "even"
    path = tmp / "skills.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def slowly(asked: collections.Counter[str]):
    """A teacher that solves everything, a moment later, and counts what it was asked."""

    def answer(request) -> Answer:
        problem = request.json["messages"][1]["content"].split("\n")[-1]
        asked[problem] += 1
        solution = solve(problem)
        assert solution is not None, problem
        text = "\n".join(f"{n}. {step}" for n, step in enumerate(solution.steps, start=1))
        reply = completion(f"{text}\nAnswer: {solution.answer}")
        reply.wait_s = 0.3
        return reply

    return answer


def test_a_job_killed_while_its_teacher_answers_goes_on_and_learns_what_was_written(tmp_path):
    out, rows = tmp_path / "out", by_skill(tmp_path)
    journal = out / "examples/teacher.jsonl"
    asked: collections.Counter[str] = collections.Counter()
    with serve(slowly(asked)) as server:
        teacher = f"more_examples.teacher={{base_url: '{server.url}/v1', model: t, concurrency: 2}}"
        command = small_job(out, tmp_path, *SHORT, f"data.train={rows}", teacher)
        with start(command) as process:
            deadline = time.monotonic() + DEADLINE_S
            while not journal.exists() or journal.read_bytes().count(b'"accepted"') < 3:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
        measured = (out / "examples/measured.json").read_bytes()
        assert not (out / "examples/result.json").exists()
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "examples/measured.json").read_bytes() == measured
    assert len([n for n in asked.values() if n > 1]) <= 2, "only what was under way"

    result = json.loads((out / "examples/result.json").read_text())
    assert result["counts"]["accepted"] == 10 == sum(result["planned"].values())
    assert set(result["standings"]) == {"even", "odd"}
    assert all(0 < one["num_rows"] <= 24 for one in result["standings"].values())
    assert all(one["step_reward"] is not None for one in result["standings"].values())

    written = [json.loads(line) for line in (out / "examples/rows.jsonl").read_text().splitlines()]
    before = {row.problem_text: row for row in read_rows(rows)}
    assert len(written) == 10
    for row in written:
        problem = row["messages"][-1]["content"]
        assert not before[problem].expert_steps, "only rows that had no steps are asked"
        assert row["expert_steps"][-1].endswith(row["reference_answer"])
        assert row["provenance"]["teacher"] == "endpoint:t"
        assert problem in asked

    assert (train_steps(out, "srl"), train_steps(out, "srl_2")) == ([1, 2], [1])
    events = read_events(out / "events.jsonl")
    told = [e for e in events if e.get("stage") == "examples"]
    assert [e["level"] for e in told] == ["info", "info"]
    assert "24 training problems, 4 samples each: even solved" in told[1]["message"]
    versions = [e["policy_version"] for e in events if e["type"] == "metrics"]
    assert versions == [1, 2, 5], "2 is SRL's last one, 3 is measured, 4 begins the second stage"
    (last,) = (out / "srl_2/checkpoints").glob("step-*/optimizer.safetensors")
    steps = {float(value) for name, value in load_file(last).items() if name.endswith("/step")}
    assert steps == {3.0}, "the optimizer of SRL's two steps went on"
    report = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["base", "srl", "srl_srl_2"]
    completions = report["completions"]
    assert sum(completions["engine_requests"]) == completions["scored"] + completions["dropped"]
    assert "SRL -> SRL_2" in (Path(report["export"]) / "README.md").read_text()


class Pool:
    """Solves what `solves` says, and gives every step the same reward."""

    def __init__(self, solves) -> None:
        self.solves, self.sampled = solves, 0

    def generate(self, problems, num_rollouts, sampling, seed):
        self.sampled += len(problems) * num_rollouts
        return [[Rollout(p.id, ())] * num_rollouts for p in problems]

    def score(self, verifier, pairs):
        return [Verdict(self._reward(problem)) for problem, _ in pairs]

    def _reward(self, problem: Problem) -> float:
        return 0.4 if problem.expert_step is not None else float(self.solves(problem))


def part_of_a_job(tmp: Path, pool: Pool, *settings: str) -> tuple[MoreExamples, list]:
    """(the part with the quickstart's rows of two skills, the events that it will emit)."""
    spec = load_spec(JOB, [*SHORT, f"data.train={by_skill(tmp, 400)}", *settings])
    data, renderer = check_job(spec)
    told: list = []
    part = MoreExamples(
        spec=spec,
        data=data,
        renderer=renderer,
        pool=pool,  # type: ignore[arg-type]
        folder=tmp / "examples",
        emit=lambda *event: told.append(event),
        observe=lambda groups: None,
        cancelled=lambda: False,
    )
    return part, told


def test_the_weak_skill_gets_more_and_what_is_always_solved_none(tmp_path):
    """`even` is solved always, `odd` never. All of the even rows that were sampled are left out."""
    pool = Pool(lambda problem: skills[problem.id] == "even")
    part, told = part_of_a_job(tmp_path, pool, "more_examples.num_problems=400")
    skills = {row.id: row.item["skill"] for row in part.data.train}
    rows = rows_with_more(part)
    assert rows is not None
    new = [
        row
        for row, old in zip(rows, part.data.train, strict=True)
        if row.expert_steps and not old.expert_steps
    ]
    assert len(new) == 10
    assert {row.item["skill"] for row in new} == {"odd"}
    ((level, message, result),) = told
    assert level == "info"
    assert "shared by weakness" in message
    assert result["standings"]["even"]["pass_rate"] == 1
    assert result["standings"]["odd"]["pass_rate"] == 0
    assert result["standings"]["odd"]["step_reward"] == pytest.approx(0.4)
    assert result["standings"]["odd"]["surely_weak"]
    too_easy = [row for row in part.data.train if row.item["skill"] == "even"]
    num_bare = sum(not row.expert_steps for row in too_easy)
    assert result["left_out"] == {"too easy (always solved)": num_bare}
    sampled = pool.sampled
    again = rows_with_more(part)
    assert again == rows
    assert (pool.sampled, len(told)) == (sampled, 1), "what is known is not measured again"


def test_a_teacher_that_gives_nothing_costs_the_second_stage_and_no_more(tmp_path):
    with serve(Answer(status=500)) as server:
        limits = "limits: {timeout_s: 1.0, max_attempts: 1}"
        teacher = f"{{base_url: '{server.url}/v1', model: t, concurrency: 1, {limits}}}"
        pool = Pool(lambda problem: False)
        part, told = part_of_a_job(tmp_path, pool, f"more_examples.teacher={teacher}")
        assert rows_with_more(part) is None
    ((level, message, _),) = told
    assert level == "warn"
    assert "stopped: the teacher failed 8 times in a row" in message
    assert rows_with_more(part) is None, "and it stays so when the job is run again"


def test_a_solution_that_the_jobs_limits_do_not_hold_is_counted_and_left_out(tmp_path):
    def talks(request) -> Answer:
        problem = request.json["messages"][1]["content"].split("\n")[-1]
        solution = solve(problem)
        assert solution is not None
        steps = [*solution.steps[:-1], "=".join(["so it goes on and on"] * 9)]
        text = "\n".join(f"{n}. {step}" for n, step in enumerate(steps, start=1))
        last = f"{len(steps) + 1}. {solution.steps[-1]}"
        return completion(f"{text}\n{last}\nAnswer: {solution.answer}")

    with serve(talks) as server:
        teacher = f"{{base_url: '{server.url}/v1', model: t}}"
        pool = Pool(lambda problem: False)
        part, told = part_of_a_job(tmp_path, pool, f"more_examples.teacher={teacher}")
        assert rows_with_more(part) is None
    ((level, message, result),) = told
    assert (level, result["num_too_long"], result["counts"]["accepted"]) == ("warn", 10, 10)
    assert "10 do not fit the job's limits, first: line " in message
    assert str(tmp_path) not in message, "events are shown to clients"


@pytest.mark.parametrize("looks", [0, 1, 100])
def test_a_wish_to_stop_concludes_nothing(tmp_path, looks):
    """It is heard before the first problem is sampled, between chunks, and when solutions come."""
    pool = Pool(lambda problem: False)
    part, told = part_of_a_job(tmp_path, pool, "more_examples.num_problems=64")
    heard = []

    def cancelled() -> bool:
        heard.append(True)
        return len(heard) > looks

    object.__setattr__(part, "cancelled", cancelled)
    # 64 problems and 64 steps, in chunks of 32; then each row that is to be solved.
    found = rows_with_more(part)
    assert pool.sampled == {0: 0, 1: 32 * 4, 100: 128 * 4}[looks]
    assert (found is None) == (looks < 100)
    if looks < 100:
        assert told == []
        assert not is_measured(part.folder)
        assert not (part.folder / more_examples.RESULT_FILE).exists()


def test_a_folder_is_the_same_jobs_however_its_teacher_is_asked(tmp_path):
    def claimed(*settings: str) -> None:
        engine = "more_examples.teacher={type: engine, model: ./teacher}"
        spec = load_spec(JOB, [*SHORT, engine, *settings])
        assert spec.more_examples is not None
        here = spec.more_examples.model_copy(update={"teacher_model": str(tmp_path / "teacher")})
        claim(spec.model_copy(update={"more_examples": here}), tmp_path)

    (tmp_path / "teacher").mkdir()
    weights = tmp_path / "teacher/model.safetensors"
    weights.write_bytes(b"1")
    claimed()
    claimed("more_examples.teacher.concurrency=2", "more_examples.teacher.draft_deadline_s=5.0")
    with pytest.raises(SpecError, match=r"differs in spec\.more_examples\.teacher\.temperature"):
        claimed("more_examples.teacher.temperature=0.1")
    weights.write_bytes(b"2")
    with pytest.raises(SpecError, match=r"sha256\.more_examples\.teacher/model\.safetensors"):
        claimed()


def test_outcomes_survive_their_file():
    outcomes = Outcomes()
    outcomes.add("train:1", 4, 1)
    outcomes.by_row["train:1"].step_rewards += [0.5, -1.0]
    again = Outcomes.from_json(json.loads(json.dumps(outcomes.as_json())))
    assert again.by_row == outcomes.by_row


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (("srl=null", "rlvr={}"), "more_examples are for what `srl` leaves weak"),
        (("more_examples.num_examples=0",), "more_examples.num_examples"),
        (("more_examples.teacher={type: magic}",), "its type is 'magic'; choose 'endpoint'"),
        (("more_examples.num_example=3",), "did you mean 'num_examples'?"),
        (("more_examples.teacher={base_url: 'http://a/v1', model: m, x: 1}",), "teacher.*x"),
        (
            ("more_examples.teacher={type: engine, model: ./nowhere}",),
            "more_examples.teacher.model: there is no folder",
        ),
        (("more_examples.documents=[./none.txt]",), "more_examples.documents: .*none.txt"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_starts(settings, wrong):
    with pytest.raises(SpecError, match=wrong):
        check_job(load_spec(JOB, [*SHORT, *settings]))


def test_rows_that_nobody_could_solve_are_told_of_before_anything_starts(tmp_path):
    rows = by_skill(tmp_path, 48)
    with pytest.raises(DataError, match="every row has expert_steps already"):
        check_job(load_spec(JOB, [*SHORT, f"data.train={rows}"]))
    with rows.open("a") as file:
        bare = {"messages": [{"role": "user", "content": "What?"}], "reference_answer": "1"}
        file.write(json.dumps(bare) + "\n")
    with pytest.raises(DataError, match="no problem without expert_steps is of a family"):
        check_job(load_spec(JOB, [*SHORT, f"data.train={rows}"]))


def test_the_cluster_has_to_hold_learner_or_teacher_whichever_asks_for_more():
    engine = "{type: engine, model: m, num_engines: 2, cpus_per_engine: 1.5, gpus_per_engine: 1.0}"
    spec = load_spec(JOB, [*SHORT, f"more_examples.teacher={engine}"])
    # Two engines of the teacher, one of the job at 0.5, two verifiers at 0.1.
    assert resources_asked(spec) == pytest.approx({"CPU": 3.0 + 0.5 + 0.2, "GPU": 2.0})
    assert resources_asked(load_spec(JOB, [*SHORT])) == pytest.approx(
        {"CPU": 0.5 + 0.5 + 0.2, "GPU": 0.0}
    )
