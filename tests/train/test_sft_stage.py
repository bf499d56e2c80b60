"""The warm start as a stage: counted in steps, stopped with a commit, continued bit by bit."""

import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from conftest import JOB

from train import checkpoint
from train.data import read_rows
from train.events import EventLog, read_events
from train.prompts import PromptRenderer, load_tokenizer
from train.sft import SFTConfigBundle, run_sft, sft_examples
from train.spec import JobSpec, SFTSpec
from train.spec_file import load_spec
from train.stop import JobStoppedError, StopRequest

NUM_ROWS, NUM_STEPS = 18, 14  # 7 batches of 16 steps, twice; the last of each is short
DEADLINE_S = 300


@dataclass
class Stage:
    """A stage in a folder of its own, and the log that it writes."""

    bundle: SFTConfigBundle
    stop: StopRequest

    def run(self):
        return run_sft(self.bundle, self.bundle.out / ".ray", self.stop)

    def wish_to_stop(self, after: int) -> None:
        """Wait for a step, then wish."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if any(event["step"] >= after for event in self.events("metrics")):
                self.stop.signal_number = signal.SIGTERM
                return
            time.sleep(0.05)

    def events(self, kind: str) -> list[dict]:
        found = read_events(self.bundle.out / "events.jsonl")
        return [event for event in found if event["type"] == kind]


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def spec() -> JobSpec:
    sft = "sft={num_epochs: 2, batch_size: 16, learning_rate: 1.0e-3, with_thoughts: true}"
    return load_spec(JOB, [sft, "srl=null", "rlvr=null"])


def stage(spec: JobSpec, out: Path, **changes: object) -> Stage:
    assert spec.sft is not None
    sft = spec.sft.model_copy(update=changes)
    renderer = PromptRenderer(load_tokenizer(spec), spec.prompt)
    examples = sft_examples(read_rows(spec.data.train)[:NUM_ROWS], renderer, sft)
    events = ray.remote(EventLog).remote(out / "events.jsonl")
    return Stage(SFTConfigBundle(spec, sft, examples, out, events), StopRequest())


@pytest.fixture(scope="module")
def undisturbed(cluster, spec, tmp_path_factory) -> tuple[Stage, str]:
    """A stage that ran to its end, and the sha256 of its weights."""
    run = stage(spec, tmp_path_factory.mktemp("sft"))
    return run, weights(run.run().path)


def weights(path: Path) -> str:
    return checkpoint.sha256(path / "model.safetensors")


def test_every_step_is_an_event_with_its_place_in_the_stage(undisturbed):
    run, _ = undisturbed
    steps = run.events("metrics")
    assert [(e["stage"], e["step"], e["total_steps"]) for e in steps] == [
        ("sft", step, NUM_STEPS) for step in range(1, NUM_STEPS + 1)
    ]
    assert run.bundle.num_steps == NUM_STEPS
    assert steps[-1]["loss"] < steps[0]["loss"]
    num_tokens = sum(len(example["input_ids"]) for example in run.bundle.examples)
    assert sum(e["trained_tokens"] for e in steps) == 2 * num_tokens


def test_the_last_checkpoint_alone_is_kept_and_holds_no_pickle_of_weights(undisturbed):
    run, _ = undisturbed
    assert checkpoint.steps(run.bundle.folder) == [NUM_STEPS]
    (event,) = run.events("checkpoint")
    assert (event["path"], event["kept"]) == ("sft/checkpoints/step-000014", [NUM_STEPS])
    names = {path.name for path in (run.bundle.out / event["path"]).iterdir()}
    assert "model.safetensors" in names
    assert not names & {"training_args.bin", "pytorch_model.bin"}
    assert [path.name for path in run.bundle.folder.iterdir()] == ["step-000014"]


def test_a_stage_stopped_twice_in_its_middle_ends_with_the_weights_of_an_undisturbed_one(
    undisturbed, spec, tmp_path
):
    _, wanted = undisturbed
    run = stage(spec, tmp_path, save_interval=5)
    stopped_at = []
    for after in (2, 8):  # in the first epoch, and in the second
        watcher = threading.Thread(target=run.wish_to_stop, args=(after,))
        watcher.start()
        with pytest.raises(JobStoppedError, match="of stage sft") as caught:
            run.run()
        watcher.join()
        run = Stage(stage(spec, tmp_path, save_interval=5).bundle, StopRequest())
        found = checkpoint.latest(run.bundle.folder)
        assert found is not None
        assert found.step == caught.value.step
        stopped_at.append(found.step)
    assert 2 <= stopped_at[0] < stopped_at[1] < NUM_STEPS
    result = run.run()
    assert (result.step, result.valid_reward) == (NUM_STEPS, None)
    assert weights(result.path) == wanted
    assert [e["step"] for e in run.events("metrics")] == list(range(1, NUM_STEPS + 1))
    resumed = [e["resumed_at"] for e in run.events("message") if "resumed_at" in e]
    assert resumed == [0, *stopped_at]


def test_a_stage_that_ended_is_not_trained_again(undisturbed):
    run, wanted = undisturbed
    num_steps = len(run.events("metrics"))
    assert weights(run.run().path) == wanted
    assert len(run.events("metrics")) == num_steps


@pytest.mark.parametrize(
    ("num_examples", "num_workers", "num_steps"),
    [(16, 1, 1), (17, 1, 2), (1, 1, 1), (33, 2, 3), (32, 2, 2), (3, 2, 1)],
)
def test_the_steps_of_a_stage_are_known_beforehand(num_examples, num_workers, num_steps):
    assert SFTSpec(batch_size=16).num_steps(num_examples, num_workers) == num_steps
    assert SFTSpec(batch_size=16, num_epochs=3).num_steps(num_examples, num_workers) == (
        3 * num_steps
    )
