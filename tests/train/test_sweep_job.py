"""The process of a trial, and what Tune is given of it."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from sweep_world import ENVIRONMENT, FAKE, alive, fake_job, fake_trial, log, starts, wait_until

from train.sweep.job import JobFailedError, take_slot
from train.sweep.progress import TrialLines
from train.sweep.run import conclude
from train.sweep.trainable import FolderASHA, Place, SweepTrial
from train.sweep.trials import read_trial


def test_validations_are_told_one_by_one_until_the_report(tmp_path):
    job = fake_job(fake_trial(tmp_path / "000", 0.5))
    assert [job.next_validation() for _ in range(4)] == [(1, 0.5), (2, 1.0), (3, 1.5), None]
    ((pid, _),) = starts(tmp_path / "000")
    assert not alive(pid)


def test_a_stopped_job_commits_and_another_goes_on_from_its_folder(tmp_path):
    folder = fake_trial(tmp_path / "000", 0.5)
    first = fake_job(folder, step_s=0.5)
    assert first.next_validation() == (1, 0.5)
    first.stop()
    ((pid, _),) = starts(folder)
    assert (folder / "out" / "stopped").read_text() == str(pid)
    fake_job(folder).run()
    assert [found for _, found in starts(folder)] == [0, 1]
    assert read_trial(folder).validations == ((1, 0.5), (2, 1.0), (3, 1.5))


def test_a_job_that_does_not_heed_is_killed(tmp_path):
    folder = fake_trial(tmp_path / "000", 0.5, max_steps=1000)
    (folder / "stubborn").touch()
    job = fake_job(folder)
    job.next_validation()
    job.stop(grace_s=0.5)
    ((pid, _),) = starts(folder)
    assert not alive(pid)
    assert not (folder / "out" / "stopped").exists()


def test_a_job_that_fails_says_its_last_words(tmp_path):
    job = fake_job(fake_trial(tmp_path / "000", 0.95))
    with pytest.raises(JobFailedError, match=r"status 1: .*the loss is not finite"):
        job.next_validation()


def test_a_job_waits_for_a_slot_and_the_job_itself_holds_it(tmp_path):
    job = fake_job(fake_trial(tmp_path / "000", 0.5, max_steps=1000))
    job.next_validation()
    assert take_slot(tmp_path / "slots", 1) is None
    free = take_slot(tmp_path / "slots", 2)
    assert free is not None
    os.close(free)
    job.stop()
    again = take_slot(tmp_path / "slots", 1)
    assert again is not None
    os.close(again)


def test_a_job_ends_with_the_process_that_follows_it(tmp_path):
    folder = fake_trial(tmp_path / "000", 0.5, max_steps=1000)
    code = (
        "import sys; from pathlib import Path; from train.sweep.job import TrialJob; import os\n"
        f"job = TrialJob(Path({str(folder)!r}), Path({str(tmp_path / 'slots')!r}), 1, os.environ, "
        f"{FAKE!r})\nwhile True: job.next_validation()"
    )
    follower = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT)
    wait_until(lambda: read_trial(folder).validations)
    follower.kill()
    follower.wait()
    ((pid, _),) = starts(folder)
    wait_until(lambda: not alive(pid))
    assert (folder / "out" / "stopped").exists()


# What Tune is given


class Ended(NamedTuple):
    """A trial of Tune's."""

    trial_id: str
    config: dict
    ended: bool

    def is_finished(self) -> bool:
        """As Tune's."""
        return self.ended


class Controller(NamedTuple):
    """Knows all trials."""

    trials: tuple

    def get_trials(self) -> list:
        """As Tune's."""
        return list(self.trials)


def test_the_best_is_chosen_again_when_the_default_has_been_trained_to_its_end(tmp_path):
    """ASHA had stopped the default at 0.2 and another at 0.5; at its end the default has 0.9."""
    for number, reward in ((0, 0.2), (1, 0.5), (2, 1.0)):
        log(tmp_path / f"00{number}", ("srl", 1, reward))
        (tmp_path / f"00{number}" / "setting.json").write_text("{}")
    ran = []

    class Job(NamedTuple):
        number: int

        def run(self) -> None:
            ran.append(self.number)
            folder = tmp_path / f"00{self.number}"
            last = 0.9 if self.number == 0 else 0.6
            log(folder, ("srl", 1, 0.1), ("srl", 2, last))
            (folder / "out" / "report.json").write_text('{"rows": []}')

    place = SimpleNamespace(root=tmp_path, job=Job)
    result = conclude(place, {0: "killed", 2: "its loss is not a number"}, lambda line: None)
    assert ran == [1, 0]
    assert (result["best"], result["heldout"]) == (0, None)
    assert result["verdict"].startswith("None is better")
    assert [trial["ended"] for trial in result["trials"]] == ["finished", "finished", "failed"]
    assert [bool(trial["error"]) for trial in result["trials"]] == [False, False, True]
    assert [len(trial["validations"]) for trial in result["trials"]] == [2, 2, 1]


def test_a_trial_that_finished_is_compared_whatever_was_said_of_it(tmp_path):
    for number, reward in ((0, 0.2), (1, 0.5)):
        folder = tmp_path / f"00{number}"
        log(folder, ("srl", 1, reward))
        (folder / "setting.json").write_text("{}")
        (folder / "out" / "heldout").mkdir()
        row = json.dumps({"id": "a", "solved": bool(number)}) + "\n"
        (folder / "out" / "heldout" / "srl.jsonl").write_text(row)
        (folder / "out" / "report.json").write_text('{"rows": [{"name": "srl"}]}')
    result = conclude(SimpleNamespace(root=tmp_path), {1: "The actor died"}, lambda line: None)
    assert result["best"] == 1
    assert [trial["ended"] for trial in result["trials"]] == ["finished", "finished"]


def test_a_line_is_said_for_every_validation_and_none_for_what_is_none(tmp_path):
    said: list[str] = []
    lines, trial = TrialLines(tmp_path, said.append), Ended("t3", {"trial": 3}, False)
    lines.on_trial_result(1, [], trial, {"steps": 4, "valid_reward": 0.25})
    lines.on_trial_result(2, [], trial, {"steps": 4, "valid_reward": 0.25, "done": True})
    lines.on_trial_result(3, [], trial, {"done": True})
    lines.on_trial_result(4, [], trial, {})
    assert said == ["trial 3: step 4, validation 0.250"]


def test_rungs_hold_what_trials_saw_that_ended_before_a_kill(tmp_path):
    for number, rewards in ((0, (0.2, 0.4)), (1, (0.3, 0.6))):
        log(tmp_path / f"00{number}", *(("srl", i + 1, r) for i, r in enumerate(rewards)))
        (tmp_path / f"00{number}" / "setting.json").write_text("{}")
    old = [Ended(f"t{n}", {"trial": n}, True) for n in (0, 1)]
    new = Ended("t2", {"trial": 2}, False)
    scheduler = FolderASHA(tmp_path, grace_steps=1, reduction_factor=2)
    scheduler.set_search_properties("valid_reward", "max")
    controller = Controller((new, *old))
    for trial in controller.trials:  # Tune adds them one by one, the one that ran first
        scheduler.on_trial_add(controller, trial)
    # The median of 0.2 and 0.3 is 0.25: 0.26 goes on. At step 2 it is 0.5 of 0.4 and 0.6.
    say = [{"steps": 1, "valid_reward": 0.26}, {"steps": 2, "valid_reward": 0.49}]
    assert [scheduler.on_trial_result(controller, new, s) for s in say] == ["CONTINUE", "STOP"]


def test_a_trial_tells_validations_then_that_it_is_done_and_leaves_no_job(tmp_path):
    fake_trial(tmp_path / "000", 0.5, max_steps=2)
    place = Place(tmp_path, tmp_path / "slots", 1, ENVIRONMENT, FAKE)
    trainable = SweepTrial.__new__(SweepTrial)  # without Tune's own set-up, which asks Ray
    trainable.setup({"trial": 0}, place)
    found = [trainable.step() for _ in range(3)]
    assert found == [
        {"steps": 1, "valid_reward": 0.5},
        {"steps": 2, "valid_reward": 1.0},
        {"steps": 2, "valid_reward": 1.0, "done": True},
    ]
    fake_trial(tmp_path / "001", 0.5, max_steps=1000)
    trainable.setup({"trial": 1}, place)
    trainable.step()
    trainable.cleanup()
    ((pid, _),) = starts(tmp_path / "001")
    assert not alive(pid)
