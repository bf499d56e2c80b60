"""The learner's losses and every parameter's gradient equal those of TRL's trainers.

Both sides get the same recorded rollouts, rewards and weights, and go their whole way in float32:
ours from groups to sequences, packing, policy, loss and backward (`Learner.step`); TRL's from its
rollout function to advantages, importance weights and `compute_loss`. Each learns twice from the
batch: on-policy, and after the weights were moved, so that ratios leave 1 both ways.

TRL divides advantages by the sample standard deviation plus 1e-4, we by the population's plus
1e-6. Parity is therefore shown with advantages that both define alike: r - mean, leave-one-out.
"""

import random
from dataclasses import dataclass, replace
from statistics import fmean, pstdev, stdev

import pytest
import torch
from conftest import MODEL
from datasets import Dataset
from transformers import AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

import train.learner
from rollout.types import Problem, Rollout, RolloutGroup, Turn, Verdict
from train.advantages import grpo
from train.batch import TrainSequence, attention_mask, pack, to_sequences
from train.learner import Learner
from train.loss import ratio, sequence_sum
from train.policy import Policy, load_model
from train.spec import LearnerSpec, StageSpec

END, FIRST_TOKEN, VOCABULARY = 4, 5, 103  # of ferrata-tiny; below 5 are special tokens
MAX_TOKENS, G = 12, 4
TEMPERATURE = 4.0  # keeps log-probabilities small, and with them what float32 rounds off
PROMPT_LENGTHS = (3, 9, 1, 6)
# Four groups: unequal lengths, rollouts cut off, and (the third) rewards without variance.
LENGTHS = [(2, 12, 5, 12), (1, 7, 3, 12), (4, 12, 9, 2), (12, 6, 1, 8)]
REWARDS = [(1.0, 0.0, 0.25, -1.0), (0.0, 1.0, 1.0, 0.0), (0.5, 0.5, 0.5, 0.5), (0.0, 0.1, 0.9, 0.3)]
TIS_FLOOR, TIS_CAP = 0.7, 1.4
CLIPS = {  # (clip_low, clip_high), so that each ratio's clip acts on both sides
    "dapo": (0.2, 0.28),
    "grpo": (0.2, 0.28),
    "dr_grpo": (0.2, 0.28),
    "gspo": (0.03, 0.04),
    "rloo": (0.2, 0.28),
}
CISPO_CAP = 1.1
MODES = [None, "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
GRPO_LOSSES = ["dapo", "grpo", "dr_grpo", "gspo", "cispo"]
MOVE = 0.15  # noise on the moved weights, as a part of each tensor's own spread
pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
TOLERANCE = 1e-5  # of losses and of every entry of every gradient
RELATIVE_TOLERANCE = 3e-5  # of each parameter's gradient, as a vector; entries here are below 1


@dataclass(frozen=True)
class Update:
    """What one backward pass gave."""

    loss: float
    clip_ratio: float
    gradients: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Recorded:
    """Rollouts, and the two sets of weights under which both sides learn from them."""

    groups: list[RolloutGroup]
    old: dict[str, torch.Tensor]
    moved: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    """Sampled tokens; the sampler's log-probabilities lie around those of the old weights."""
    model = load_model(str(MODEL), "float32")
    rng, noise = random.Random(9), torch.Generator().manual_seed(9)
    groups = []
    for p, (lengths, rewards) in enumerate(zip(LENGTHS, REWARDS, strict=True)):
        prompt = tuple(rng.choices(range(FIRST_TOKEN, VOCABULARY), k=PROMPT_LENGTHS[p]))
        rollouts = []
        for length in lengths:
            tokens, logprobs = sample(model, prompt, length, noise)
            finish = "end" if tokens[-1] == END else "length"
            logprobs += 0.4 * torch.randn(length, generator=noise)
            turn = Turn(prompt, tokens, tuple(logprobs.tolist()), "", finish, ((0, length),))
            rollouts.append(Rollout(f"p{p}", (turn,)))
        verdicts = tuple(Verdict(reward) for reward in rewards)
        groups.append(RolloutGroup(Problem(f"p{p}", ""), tuple(rollouts), verdicts))
    old = {name: value.clone() for name, value in model.state_dict().items()}
    moved = {
        n: v + MOVE * v.std(correction=0) * torch.randn(v.shape, generator=noise)
        for n, v in old.items()
    }
    moved["lm_head.weight"] = moved["model.embed_tokens.weight"]  # tied
    return Recorded(groups, old, moved)


def sample(
    model, prompt: tuple[int, ...], length: int, noise: torch.Generator
) -> tuple[tuple[int, ...], torch.Tensor]:
    """Tokens, with an end token when there is room, and their log-probabilities `[length]`."""
    ids, logprobs = list(prompt), []
    for t in range(length):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        scaled = (logits / TEMPERATURE).log_softmax(dim=-1)
        probabilities = scaled.exp()
        probabilities[:FIRST_TOKEN] = 0.0
        is_end = t == length - 1 < MAX_TOKENS - 1
        ids.append(END if is_end else int(torch.multinomial(probabilities, 1, generator=noise)))
        logprobs.append(scaled[ids[-1]])
    return tuple(ids[len(prompt) :]), torch.stack(logprobs)


def stage_spec(loss: str, mode: str | None, **changes) -> StageSpec:
    """A stage that learns twice from a batch, without a bound on the gradient's norm."""
    low, high = CLIPS.get(loss, (0.2, 0.28))
    return StageSpec(
        loss=loss,
        advantage="rloo" if loss == "rloo" else "dr_grpo",
        clip_low=low,
        clip_high=high,
        cispo_cap=CISPO_CAP,
        dr_grpo_length=MAX_TOKENS if loss == "dr_grpo" else None,
        tis_cap=TIS_CAP if mode else None,
        tis_floor=TIS_FLOOR if mode else None,
        tis_mode=mode or "token_truncate",
        temperature=TEMPERATURE,
        max_grad_norm=1e9,
        **{"updates_per_batch": 2} | changes,
    )


def our_updates(
    recorded: Recorded,
    stage: StageSpec,
    monkeypatch: pytest.MonkeyPatch,
    micro_batch_tokens: int = 50,
    sequences: list[TrainSequence] | None = None,
) -> list[Update]:
    """Both updates of `Learner.step`, the second one with the moved weights."""
    learner = Learner(str(MODEL), stage, LearnerSpec(micro_batch_tokens=micro_batch_tokens))
    parts, updates = [], []
    policy_loss = train.learner.policy_loss

    def listen(*args):
        losses, clipped = policy_loss(*args)
        parts.append((losses.sum().item(), clipped.sum().item(), len(losses)))
        return losses, clipped

    def keep(*_):
        named = learner.policy.model.named_parameters()
        losses, clipped, num_tokens = (sum(part) for part in zip(*parts, strict=True))
        gradients = {name: parameter.grad.clone() for name, parameter in named}
        updates.append(Update(losses, clipped / num_tokens, gradients))
        parts.clear()

    monkeypatch.setattr(train.learner, "policy_loss", listen)
    learner.optimizer.register_step_pre_hook(keep)
    learner.optimizer.register_step_post_hook(
        lambda *_: learner.policy.model.load_state_dict(recorded.moved)
    )
    metrics = learner.step(sequences or to_sequences(recorded.groups, stage.advantage), 0)
    assert metrics["loss"] == pytest.approx(updates[0].loss, abs=1e-6)
    return updates


class RecordedRLOO(RLOOTrainer):
    """TRL's trainer, which has no `rollout_func`, with our rollouts."""

    groups: list[RolloutGroup]

    def _generate(self, prompts):
        """Return prompt tokens, completion tokens and completions."""
        rollouts = as_trl_rollouts(self.groups)
        return rollouts["prompt_ids"], rollouts["completion_ids"], prompts


def as_trl_rollouts(groups: list[RolloutGroup]) -> dict[str, list]:
    """What a `rollout_func` returns."""
    turns = [rollout.turns[0] for group in groups for rollout in group.rollouts]
    return {
        "prompt_ids": [list(turn.prompt_ids) for turn in turns],
        "completion_ids": [list(turn.token_ids) for turn in turns],
        "logprobs": [list(turn.logprobs) for turn in turns],
    }


def trl_trainer(groups: list[RolloutGroup], stage: StageSpec, folder, **changes):
    """TRL's trainer of the stage's loss, ready to be asked for losses."""
    rewards = [verdict.reward for group in groups for verdict in group.verdicts]
    common = {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(rewards),
        "num_generations": G,
        "num_iterations": 2,
        "beta": 0.0,
        "temperature": TEMPERATURE,
        "epsilon": stage.clip_low,
        "epsilon_high": stage.cispo_cap if stage.loss == "cispo" else stage.clip_high,
        "max_completion_length": MAX_TOKENS,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
    }
    parts = {
        "model": load_model(str(MODEL), "float32"),
        "reward_funcs": lambda **_: rewards,
        "train_dataset": Dataset.from_list([{"prompt": ""}]),
        "processing_class": AutoTokenizer.from_pretrained(MODEL),
    }
    if stage.loss == "rloo":
        trainer = RecordedRLOO(args=RLOOConfig(**common | changes), **parts)
        trainer.groups = groups
    else:
        config = {
            "loss_type": "grpo" if stage.loss == "gspo" else stage.loss,
            "importance_sampling_level": "sequence" if stage.loss == "gspo" else "token",
            "scale_rewards": "none",
            "vllm_importance_sampling_mode": stage.tis_mode,
            "vllm_importance_sampling_clip_min": TIS_FLOOR,
            "vllm_importance_sampling_clip_max": TIS_CAP,
        }
        trainer = GRPOTrainer(
            args=GRPOConfig(**common | config | changes),
            rollout_func=lambda prompts, trainer: as_trl_rollouts(groups),
            **parts,
        )
        # As after the start with vLLM, which alone makes TRL correct for the sampler.
        trainer.use_vllm = stage.tis_cap is not None
        trainer._last_loaded_step = trainer.state.global_step
    trainer.current_gradient_accumulation_steps = 1  # as its training loop sets it
    return trainer


def trl_updates(recorded: Recorded, trainer) -> list[Update]:
    """TRL's loss and gradients under the old and the moved weights."""
    model = trainer.model.train()
    prompts = [{"prompt": ""} for group in recorded.groups for _ in group.rollouts]
    inputs = trainer._generate_and_score_completions(prompts)
    updates = []
    for weights in (recorded.old, recorded.moved):
        model.load_state_dict(weights)
        model.zero_grad()
        loss = trainer.compute_loss(model, inputs)
        loss.backward()
        metrics = trainer._metrics["train"]
        ratios = metrics["clip_ratio/region_mean"] or metrics["cispo_clip_ratio"]
        gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        updates.append(Update(loss.item(), ratios[-1], gradients))
    return updates


def assert_equal(ours: list[Update], trl: list[Update], scale: float = 1.0) -> None:
    """Losses and every parameter's gradient agree."""
    assert len(ours) == len(trl) > 0
    for mine, theirs in zip(ours, trl, strict=True):
        assert mine.loss == pytest.approx(theirs.loss * scale, abs=TOLERANCE)
        assert mine.gradients.keys() == theirs.gradients.keys()
        for name, gradient in theirs.gradients.items():
            difference = mine.gradients[name] - gradient * scale
            assert difference.abs().max() <= TOLERANCE, name
            assert difference.norm() <= RELATIVE_TOLERANCE * gradient.norm() * scale, name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", GRPO_LOSSES)
def test_loss_and_gradients_equal_those_of_trls_grpo_trainer(
    recorded, loss, mode, monkeypatch, tmp_path
):
    stage = stage_spec(loss, mode)
    ours = our_updates(recorded, stage, monkeypatch)
    trl = trl_updates(recorded, trl_trainer(recorded.groups, stage, tmp_path))
    assert_equal(ours, trl)
    if loss in ("dapo", "grpo", "dr_grpo"):  # TRL counts gspo by sequence, cispo where A > 0
        assert ours[1].clip_ratio == pytest.approx(trl[1].clip_ratio)


def test_loss_and_gradients_equal_those_of_trls_rloo_trainer(recorded, monkeypatch, tmp_path):
    stage = stage_spec("rloo", None)  # TRL's does not correct for the sampler
    trl = trl_updates(recorded, trl_trainer(recorded.groups, stage, tmp_path))
    assert_equal(our_updates(recorded, stage, monkeypatch), trl)


@pytest.mark.parametrize("micro_batch_tokens", [1, 10_000])
@pytest.mark.parametrize("loss", [*GRPO_LOSSES, "rloo"])
def test_parity_does_not_depend_on_the_micro_batches(
    recorded, loss, micro_batch_tokens, monkeypatch, tmp_path
):
    stage = stage_spec(loss, None if loss == "rloo" else "sequence_truncate")
    ours = our_updates(recorded, stage, monkeypatch, micro_batch_tokens)
    assert_equal(ours, trl_updates(recorded, trl_trainer(recorded.groups, stage, tmp_path)))


@pytest.mark.parametrize(("loss", "mode"), [("dapo", "token_truncate"), ("rloo", None)])
def test_a_batch_learnt_from_once_takes_its_own_log_probabilities_as_old(
    recorded, loss, mode, monkeypatch, tmp_path
):
    once = stage_spec(loss, mode, updates_per_batch=1)
    trl = trl_updates(recorded, trl_trainer(recorded.groups, once, tmp_path))
    assert_equal(our_updates(recorded, once, monkeypatch), trl[:1])


@pytest.mark.parametrize("loss", [*GRPO_LOSSES, "rloo"])
def test_masked_rollouts_are_trls_masked_completions_though_we_do_not_count_them(
    recorded, loss, monkeypatch, tmp_path
):
    stage = stage_spec(loss, None)
    kept = to_sequences(recorded.groups, stage.advantage, truncation="mask")
    num_all = len(to_sequences(recorded.groups, stage.advantage))
    assert 0 < len(kept) < num_all
    trainer = trl_trainer(recorded.groups, stage, tmp_path, mask_truncated_completions=True)
    # TRL divides the losses that average over sequences by all sequences, masked ones too.
    scale = 1.0 if loss in ("dapo", "cispo") else num_all / len(kept)
    trl = trl_updates(recorded, trainer)
    if loss == "rloo":  # and a masked one's ratio is 1 to it, which adds a constant to the loss
        everything = to_sequences(recorded.groups, stage.advantage)
        constant = sum(s.advantage for s in everything if s.token_ids[-1] != END) / num_all
        trl = [replace(update, loss=update.loss + constant) for update in trl]
    assert_equal(our_updates(recorded, stage, monkeypatch, sequences=kept), trl, scale)


def test_trls_normalised_advantages_are_ours_but_for_the_divisor(recorded, tmp_path):
    trainer = trl_trainer(
        recorded.groups, stage_spec("grpo", None), tmp_path, scale_rewards="group"
    )
    prompts = [{"prompt": ""}] * sum(len(rewards) for rewards in REWARDS)
    theirs = trainer._generate_and_score_completions(prompts)["advantages"].view(-1, G).tolist()
    for rewards, advantages_G in zip(REWARDS, theirs, strict=True):
        centred = [r - fmean(rewards) for r in rewards]
        assert advantages_G == pytest.approx([c / (stdev(rewards) + 1e-4) for c in centred])
        assert grpo(rewards) == pytest.approx([c / (pstdev(rewards) + 1e-6) for c in centred])


def test_the_recorded_batch_holds_every_case_that_parity_is_claimed_for(recorded):
    sequences = to_sequences(recorded.groups, "dr_grpo")
    assert len(pack(sequences, 50)) >= 3
    assert len(pack(sequences, 1)) > len(pack(sequences, 50)) > len(pack(sequences, 10_000)) == 1
    assert any(len(batch.segments.unique()) > 2 for batch in pack(sequences, 50))  # packed rows
    assert len({len(s.token_ids) for s in sequences}) > 5
    assert {r.turns[0].finish for g in recorded.groups for r in g.rollouts} == {"end", "length"}
    assert sum(s.advantage == 0 for s in sequences) >= G
    model = Policy(load_model(str(MODEL), "float32"))
    model.temperature = TEMPERATURE
    (batch,) = pack(sequences, 10_000)
    ids, sampler, advantages = batch.sequence_ids, batch.sampler_logprobs, batch.advantages
    logprobs = []
    for weights in (recorded.old, recorded.moved):
        model.model.load_state_dict(weights)
        mask = attention_mask(batch.segments)
        with torch.no_grad():
            inputs = batch.input_ids, batch.position_ids, mask, batch.predicts, batch.targets
            logprobs.append(model(*inputs)[0])
    old, new = logprobs
    for loss, (low, high) in CLIPS.items():
        rho = ratio(loss, new, old, ids)
        for beyond in (rho > 1 + high, rho < 1 - low):
            assert (beyond & (advantages > 0)).any(), loss
            assert (beyond & (advantages < 0)).any(), loss
    assert (ratio("cispo", new, old, ids) > CISPO_CAP).any()
    for total in (old - sampler, sequence_sum(old - sampler, ids)):
        weights = total.exp()
        assert (weights > TIS_CAP).any()
        assert (weights < TIS_FLOOR).any()
        assert ((weights > TIS_FLOOR) & (weights < TIS_CAP)).any()
