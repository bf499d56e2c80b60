"""What a job is: typed, frozen, complete. No torch, no ray.

Every room reads its own part of a `JobSpec`; nothing else configures a job. Unknown keys are
refused with the nearest known one.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    WrapValidator,
    model_validator,
)

from rollout.types import InferenceProtocol, SamplingSpec, Verifier
from rollout.verifiers.registry import AnyGrader
from train.experts.engine_teacher import EngineTeacherSpec
from train.experts.teachers import EndpointTeacherSpec

LossName = Literal["dapo", "grpo", "dr_grpo", "gspo", "cispo", "rloo"]
ImportanceMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
Truncation = Literal["keep", "mask"]
AllocationMode = Literal["uniform", "weakness"]  # weakness: a skill's share is its failures'

# In substance the system prompt of arXiv 2510.25992, appendix.
STEP_SYSTEM_PROMPT = (
    "You are given a problem and, after it, the first steps of a solution. Continue with the very "
    "next logical step only. First think inside <think> and </think>, then write that one step. "
    "Do not solve the whole problem."
)


class SpecError(ValueError):
    """A job specification that cannot be honoured; the message names the field and the fix."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSpec(_Spec):
    """JSON Lines files. A relative path starts at the specification's folder."""

    train: Path
    valid: Path  # the only rows that choose checkpoints and settings
    heldout: Path | None = None  # read once, when training has ended


class PromptSpec(_Spec):
    """How a row becomes a prompt; the same for SRL, RLVR, evaluation and the export."""

    system: str | None = STEP_SYSTEM_PROMPT  # null: no system message
    step_end: Annotated[str, Field(min_length=1)] = "\n"  # closes every step but the last


class SamplingLimits(_Spec):
    """How far a rollout may go."""

    protocol: InferenceProtocol = "stepwise"  # of RLVR, evaluation and export
    max_tokens: PositiveInt = 512  # in one generation
    max_turns: PositiveInt = 16  # steps in one rollout; under `single` there is one generation


class SFTSpec(_Spec):
    """Warm start on expert steps, by TRL's SFTTrainer."""

    num_epochs: PositiveInt = 1
    batch_size: PositiveInt = 16  # sequences per optimizer step
    learning_rate: PositiveFloat = 1e-5
    with_thoughts: bool = False  # put `expert_thoughts` into the think block
    save_interval: PositiveInt = 20  # optimizer steps between committed checkpoints

    def per_worker_batch(self, num_workers: int) -> int:
        """Sequences per optimizer step in one learner worker."""
        return max(1, self.batch_size // num_workers)

    def num_steps(self, num_examples: int, num_workers: int) -> int:
        """Optimizer steps of the stage; an example is one expert step."""
        num_batches = math.ceil(num_examples / self.per_worker_batch(num_workers))
        return self.num_epochs * max(1, math.ceil(num_batches / num_workers))


class StageSpec(_Spec):
    """One reinforcement stage. Defaults suit a model of about 7B; SRL and RLVR differ below."""

    max_steps: PositiveInt = 100
    groups_per_step: PositiveInt = 64  # P: problems with a learning signal in a batch
    group_size: Annotated[int, Field(ge=2)] = 8  # G: rollouts per problem
    learning_rate: PositiveFloat = 1e-6
    lr_schedule: Literal["constant", "linear"] = "constant"  # linear: to a tenth at the last step
    warmup_steps: NonNegativeInt = 0
    temperature: PositiveFloat = 1.0
    max_tokens: PositiveInt | None = None  # in one generation; null: sampling.max_tokens
    std_threshold: NonNegativeFloat = 0.0  # a group is kept when its rewards' std exceeds this
    max_sampling_rounds: PositiveInt = 4  # refills, the first round included
    advantage: Literal["grpo", "dr_grpo", "rloo"] = "grpo"
    truncation: Truncation = "keep"  # mask: a rollout cut off by max_tokens is not learnt from
    loss: LossName = "dapo"
    clip_low: PositiveFloat = 0.2  # rho is clipped to 1 - clip_low .. 1 + clip_high;
    clip_high: PositiveFloat = 0.28  # under gspo the defaults are 3e-4 and 4e-4
    cispo_cap: PositiveFloat = 5.0  # cispo's bound on rho, which clip_low and clip_high are not
    dr_grpo_length: PositiveInt | None = None  # tokens; the constant that dr_grpo divides by
    tis_cap: PositiveFloat | None = 2.0  # null: no correction for the sampler's mismatch
    tis_floor: PositiveFloat | None = None
    tis_mode: ImportanceMode = "token_truncate"  # *_mask: no loss outside tis_floor .. tis_cap
    updates_per_batch: PositiveInt = 1
    max_grad_norm: PositiveFloat = 1.0
    weight_decay: NonNegativeFloat = 0.0
    eval_interval: PositiveInt = 20  # steps between validations; the best one is the result
    save_interval: PositiveInt = 20  # steps between committed checkpoints

    @model_validator(mode="before")
    @classmethod
    def _gspo_clips_closer(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("loss") == "gspo":
            return {"clip_low": 3e-4, "clip_high": 4e-4} | raw  # arXiv 2507.18071, section 5.1
        return raw

    @model_validator(mode="after")
    def _loss_fields_fit(self) -> "StageSpec":
        if self.loss == "dr_grpo" and self.dr_grpo_length is None:
            raise ValueError(
                "loss 'dr_grpo' divides by a constant length: give dr_grpo_length, such as the "
                "value of sampling.max_tokens"
            )
        if self.loss != "dr_grpo" and self.dr_grpo_length is not None:
            raise ValueError(
                f"dr_grpo_length is {self.dr_grpo_length}, which loss {self.loss!r} does not use: "
                "remove it, or choose loss 'dr_grpo'"
            )
        if self.tis_floor is not None and (self.tis_cap is None or self.tis_cap < self.tis_floor):
            raise ValueError(
                f"tis_floor is {self.tis_floor} and tis_cap is {self.tis_cap}: give a tis_cap "
                "above tis_floor, or leave tis_floor out"
            )
        return self


class SRLSpec(StageSpec):
    """Supervised reinforcement learning: one expert step at a time (arXiv 2510.25992)."""

    learning_rate: PositiveFloat = 5e-7
    std_threshold: NonNegativeFloat = 0.02
    targets: Literal["all", "all_but_last"] = "all"  # N or N-1 instances from N steps
    title_context: bool = False  # the next step's title ("Title: text") enters the prompt
    autojunk: bool = False


class RLVRSpec(StageSpec):
    """Reinforcement learning from the job's grader alone."""


def _teacher_of_its_type(value: Any, _: Any) -> Any:
    """Chosen by `type` before anything else is read, so that errors are of that kind alone."""
    if value is None or isinstance(value, BaseModel):
        return value
    kinds = {"endpoint": EndpointTeacherSpec, "engine": EngineTeacherSpec}
    named = value.get("type", "endpoint") if isinstance(value, dict) else "endpoint"
    if not isinstance(named, str) or named not in kinds:
        raise ValueError(f"its type is {named!r}; choose 'endpoint' or 'engine'")
    return kinds[named].model_validate(value)


class MoreExamplesSpec(_Spec):
    """Further expert solutions for what SRL left weak, and a second SRL stage that learns them."""

    num_examples: PositiveInt  # verified solutions of training rows that have no steps
    mode: AllocationMode = "weakness"  # how they are shared among skills
    num_problems: PositiveInt = 64  # training rows that SRL's result is measured on
    num_samples: PositiveInt = 4  # of each of them
    max_steps: PositiveInt | None = None  # of the second SRL stage; null: srl.max_steps
    teacher: (
        Annotated[EndpointTeacherSpec | EngineTeacherSpec, WrapValidator(_teacher_of_its_type)]
        | None
    ) = None  # null: the programmatic solver
    teacher_model: str | None = None  # where an engine teacher's model lies, when not at its name
    documents: tuple[Path, ...] = ()  # UTF-8 texts for a teacher to read


class EvaluationSpec(_Spec):
    """The final evaluation on held-out rows."""

    pass_k: PositiveInt = 8
    temperature: PositiveFloat = 1.0  # of the pass@k samples; greedy is separate


class LearnerSpec(_Spec):
    """The training side."""

    num_workers: PositiveInt = 1
    cpus_per_worker: PositiveFloat = 0.5  # logical; threads are separate
    gpus_per_worker: NonNegativeFloat = 0
    num_threads: PositiveInt = 2
    dtype: Literal["float32", "bfloat16"] = "float32"  # of computing; weights are kept in float32
    micro_batch_tokens: PositiveInt = 16384  # in one forward pass, padding included
    max_failures: NonNegativeInt = 3  # worker deaths survived per stage


class RolloutSpec(_Spec):
    """The sampling side."""

    num_engines: PositiveInt = 1
    num_verifiers: PositiveInt = 2
    cpus_per_engine: PositiveFloat = 0.5
    gpus_per_engine: NonNegativeFloat = 0
    cpus_per_verifier: PositiveFloat = 0.1
    num_threads: PositiveInt = 2
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_model_len: PositiveInt = 1024
    max_num_seqs: PositiveInt = 256
    kv_cache_gib: PositiveFloat = 1.0
    start_deadline_s: PositiveFloat = 600.0  # engines and verifiers ready
    generate_deadline_s: PositiveFloat = 1800.0  # one batch of rollouts
    verdict_deadline_s: PositiveFloat = 60.0  # one batch of verdicts


class JobSpec(_Spec):
    """A whole job: model, data, grader, stages in order SFT -> SRL -> RLVR, resources.

    With `more_examples` a second SRL stage, "srl_2", stands between SRL and RLVR.
    """

    model: str  # a hub name, or a folder written with a leading "./", "../" or "/"
    data: DataSpec
    grader: AnyGrader | None = None  # needed by RLVR, validation and evaluation
    seed: Annotated[int, Field(ge=0, le=2147483647)] = 0
    prompt: PromptSpec = PromptSpec()
    sampling: SamplingLimits = SamplingLimits()
    sft: SFTSpec | None = None
    srl: SRLSpec | None = None
    more_examples: MoreExamplesSpec | None = None
    rlvr: RLVRSpec | None = None
    evaluation: EvaluationSpec = EvaluationSpec()
    learner: LearnerSpec = LearnerSpec()
    rollout: RolloutSpec = RolloutSpec()

    @model_validator(mode="after")
    def _is_a_job(self) -> "JobSpec":
        if not (self.sft or self.srl or self.rlvr):
            raise ValueError("no stage: give at least one of `sft`, `srl`, `rlvr`")
        if self.grader is None:
            raise ValueError(
                "no grader: give `grader: {type: answer}`; checkpoints are chosen by it"
            )
        if self.more_examples is not None and self.srl is None:
            raise ValueError(
                "more_examples are for what `srl` leaves weak, but there is no `srl`: give it, or "
                "remove `more_examples`"
            )
        for name, max_tokens in self.generation_limits().items():
            if max_tokens >= self.rollout.max_model_len:
                raise ValueError(
                    f"{name} is {max_tokens}, which leaves no room for a prompt in "
                    f"rollout.max_model_len {self.rollout.max_model_len}: lower the former or "
                    "raise the latter"
                )
        return self

    @property
    def reinforcement_stages(self) -> dict[str, StageSpec]:
        """The stages after SFT by name, in the order in which they run."""
        more = self.more_examples
        again = self.srl
        if again is not None and more is not None and more.max_steps is not None:
            again = again.model_copy(update={"max_steps": more.max_steps})
        stages = {"srl": self.srl, "srl_2": more and again, "rlvr": self.rlvr}
        return {name: stage for name, stage in stages.items() if stage is not None}

    def generation_limits(self) -> dict[str, int]:
        """Every limit of one generation, in tokens, by the field that sets it."""
        stages = {"srl": self.srl, "rlvr": self.rlvr}
        given = {
            f"{name}.max_tokens": stage.max_tokens
            for name, stage in stages.items()
            if stage is not None and stage.max_tokens is not None
        }
        return {"sampling.max_tokens": self.sampling.max_tokens, **given}

    def sampling_spec(self, temperature: float, stage: StageSpec | None = None) -> SamplingSpec:
        """How whole problems are sampled: in a stage (RLVR), or to validate and evaluate."""
        stepwise = self.sampling.protocol == "stepwise"
        return SamplingSpec(
            protocol=self.sampling.protocol,
            max_tokens=(stage and stage.max_tokens) or self.sampling.max_tokens,
            max_turns=self.sampling.max_turns if stepwise else 1,
            temperature=temperature,
            step_end=self.prompt.step_end,
        )

    def step_sampling_spec(self, stage: StageSpec) -> SamplingSpec:
        """How a single step is sampled (SRL), whatever the job's protocol."""
        max_tokens = stage.max_tokens or self.sampling.max_tokens
        return SamplingSpec("stepwise", max_tokens, 1, stage.temperature, self.prompt.step_end)


def job_grader(job: JobSpec) -> Verifier:
    """The job's verifier of whole problems; `JobSpec` guarantees that there is one."""
    grader: Any = job.grader
    assert grader is not None
    return grader


def is_srl(stage: str) -> bool:
    """True of the stages that sample single steps: "srl" and "srl_2"."""
    return stage.startswith("srl")
