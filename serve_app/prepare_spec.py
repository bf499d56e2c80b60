"""A create call, its rows, a model and a cluster become the fields of one `JobSpec`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from serve_app.prepare_error import PrepareError, bad_lines
from serve_app.prepare_rows import JobRows
from serve_app.schemas import CreateJob, given_fields
from train.auto.facts import ModelFacts, RowFacts, measure_rows, read_model_facts
from train.auto.limits import (
    choose_limits,
    choose_protocol,
    choose_step_end,
    system_prompt_fault,
)
from train.auto.resources import ResourceError, choose_resources, device_of
from train.auto.stages import Wishes, choose_sft, choose_stage
from train.data import MAX_REPORTED_ERRORS, BadLine, Row
from train.spec import (
    STEP_SYSTEM_PROMPT,
    EvaluationSpec,
    LearnerSpec,
    PromptSpec,
    RLVRSpec,
    RolloutSpec,
    SamplingLimits,
    SFTSpec,
    SRLSpec,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelAtHand:
    """What preparation reads of a model: no weights."""

    path: str  # folder or hub name
    facts: ModelFacts
    tokenizer: "PreTrainedTokenizerBase"

    def count_tokens(self, text: str) -> int:
        """Tokens of a rendered text."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))


def load_model_at_hand(model_path: str) -> ModelAtHand:
    """Read configuration and tokenizer. Raises PrepareError for a model that cannot be used."""
    from train.preflight import config_of
    from train.prompts import tokenizer_of

    try:
        config, tokenizer = config_of(model_path), tokenizer_of(model_path)
        if not tokenizer.chat_template:
            raise ValueError("the model's tokenizer has no chat template")
        return ModelAtHand(model_path, read_model_facts(model_path, config), tokenizer)
    except (ValueError, OSError) as error:
        raise PrepareError("invalid_model", str(error), "model", []) from None


def wishes_of(job: CreateJob) -> Wishes:
    """The method's hyperparameters."""
    chosen = job.method.reinforcement if job.method else None
    part = chosen.hyperparameters if chosen else None
    names = Wishes.__dataclass_fields__
    return Wishes(**{name: getattr(part, name, None) for name in names})


def asked_protocol(job: CreateJob) -> Literal["single", "stepwise"] | None:
    """The protocol that the client names, in `sampling` or in `rlvr`."""
    said = job.sampling and given_fields(job.sampling, SamplingLimits).get("protocol")
    return said or (job.rlvr.protocol if job.rlvr else None)


def assemble(
    job: CreateJob,
    data: JobRows,
    grader: Any,
    model: ModelAtHand,
    cluster: Mapping[str, float],
    *,
    has_steps: bool,
) -> tuple[dict[str, Any], list[str]]:
    """Return (every field of the specification but `data`, why each automatic choice).

    Raises PrepareError.
    """
    notes = list(data.notes)
    said = {"resources": given_fields(job.resources, LearnerSpec)}
    said["resources"] |= given_fields(job.resources, RolloutSpec)
    device = device_of(cluster, said["resources"])
    protocol, reason = asked_protocol(job), None
    if protocol is None:
        protocol, reason = choose_protocol(any(row.expert_steps for row in data.every_row()))
        notes.append(reason)
    prompt, prompt_notes = _prompt(job, data, model, protocol)
    rows = _measure(data, model, prompt)
    stages, stage_notes = _stages(job, data, grader, rows, model, device, has_steps=has_steps)
    sampling, max_model_len, limit_notes = choose_limits(
        _sampling_said(job),
        said["resources"].get("max_model_len"),
        protocol,
        rows,
        model.facts,
        device,
        max((stage.get("max_tokens") or 0 for stage in stages.values()), default=0),
    )
    for stage in stages.values():
        if stage.get("loss") == "dr_grpo":
            stage.setdefault("dr_grpo_length", stage.get("max_tokens") or sampling["max_tokens"])
    try:
        resources, resource_notes = choose_resources(
            said["resources"],
            cluster,
            model.facts,
            max_model_len,
            _most_sequences(stages),
            cores=len(os.sched_getaffinity(0)),
        )
    except ResourceError as error:
        raise PrepareError("insufficient_resources", str(error), "resources", []) from None
    spec = {
        "model": model.path,
        "grader": grader.model_dump(mode="json"),
        "seed": job.seed or 0,
        "prompt": prompt,
        "sampling": sampling,
        "evaluation": given_fields(job.evaluation, EvaluationSpec),
        "learner": {k: v for k, v in resources.items() if k in LearnerSpec.model_fields},
        "rollout": {k: v for k, v in resources.items() if k in RolloutSpec.model_fields},
        **stages,
    }
    return spec, [*notes, *prompt_notes, *stage_notes, *limit_notes, *resource_notes]


def _sampling_said(job: CreateJob) -> dict[str, Any]:
    """Whole problems are validated as RLVR samples them, unless `sampling` says otherwise."""
    said = given_fields(job.sampling, SamplingLimits)
    if job.rlvr is not None and job.rlvr.max_tokens is not None:
        said.setdefault("max_tokens", job.rlvr.max_tokens)
    return said


def _prompt(
    job: CreateJob, data: JobRows, model: ModelAtHand, protocol: str
) -> tuple[dict[str, Any], list[str]]:
    prompt, notes = given_fields(job.prompt, PromptSpec), []
    if "step_end" not in prompt:
        end = choose_step_end(step for row in data.every_row() for step in row.expert_steps)
        if end is None:
            raise PrepareError(
                "invalid_training_file",
                "The expert steps contain every text that could close a step (newlines, '---'); "
                "name one that stands in no step as prompt.step_end.",
                "prompt.step_end",
                [],
            )
        prompt["step_end"] = end
    row = data.rows["training"][0]
    if "system" in prompt:
        fault = prompt["system"] and _system_fault(prompt["system"], row, model)
        if fault:
            raise PrepareError(
                "invalid_value",
                f"prompt.system cannot be used: {fault}; shorten it, or set it to null",
                "prompt.system",
                [],
            )
        return prompt, notes
    prompt["system"] = STEP_SYSTEM_PROMPT if protocol == "stepwise" else None
    if prompt["system"] and (fault := _system_fault(prompt["system"], row, model)):
        prompt["system"] = None
        notes.append(f"prompt: no system prompt, because {fault}")
    return prompt, notes


def _system_fault(text: str, row: Row, model: ModelAtHand) -> str | None:
    tokenizer = model.tokenizer
    messages = [m for m in row.messages if m["role"] != "system"]
    try:
        written = tokenizer.apply_chat_template(
            [{"role": "system", "content": text}, *messages],
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:
        # Acceptable: a template is a program of the model's author; one that refuses the role
        # raises what it likes. The reason is told.
        return f"the model's chat template rejects it ({error})"
    ids = tokenizer.encode(text, add_special_tokens=False)
    lost = tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids
    return system_prompt_fault(text, str(written), len(ids), model.facts, lost=lost)


def _measure(data: JobRows, model: ModelAtHand, prompt: Mapping[str, Any]) -> RowFacts:
    """Lengths over all rows; counts of the training rows alone."""
    from train.prompts import PromptRenderer

    renderer = PromptRenderer(model.tokenizer, PromptSpec(**prompt))
    facts = measure_rows(list(data.every_row()), renderer.render, model.count_tokens)
    positions = model.facts.max_positions
    if positions is not None and facts.context_tokens + facts.step_tokens > positions:
        _check_each_fits(data, renderer.render, model, positions)
    training = data.rows["training"]
    num_steps = sum(len(row.expert_steps) for row in training)
    return replace(facts, num_rows=len(training), num_steps=num_steps)


def _check_each_fits(data: JobRows, render: Any, model: ModelAtHand, positions: int) -> None:
    """Raise PrepareError for rows that are longer than the model, whatever the settings."""
    for use, rows in data.rows.items():
        bad = []
        for row in rows:
            facts = measure_rows([row], render, model.count_tokens)
            needed = facts.context_tokens + facts.step_tokens
            if needed > positions:
                bad.append(
                    BadLine(
                        row.line,
                        f"problem and expert steps take {needed} tokens, but the model has only "
                        f"{positions} positions; shorten the row or choose another model",
                    )
                )
        if bad:
            bad = bad[:MAX_REPORTED_ERRORS]
            raise bad_lines(data.sources[use], bad)


def _stages(
    job: CreateJob,
    data: JobRows,
    grader: Any,
    rows: RowFacts,
    model: ModelAtHand,
    device: str,
    *,
    has_steps: bool,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    wishes, notes = wishes_of(job), []
    num_parameters = model.facts.num_parameters
    stages: dict[str, dict[str, Any]] = {}
    if job.asks("sft"):
        said = given_fields(job.sft, SFTSpec)
        said.setdefault("with_thoughts", rows.has_thoughts)
        stages["sft"], why = choose_sft(
            said, wishes, num_examples=rows.num_steps, num_parameters=num_parameters
        )
        notes += why
    own = job.method.srl if job.method and job.method.type == "srl" else job.srl
    wanted: list[tuple[Literal["srl", "rlvr"], Any, Any, int]] = []
    if has_steps and not job.disables("srl"):
        wanted.append(("srl", own, SRLSpec, rows.num_steps))
    if job.kind != "srl" and not job.disables("rlvr"):
        judged = _num_judged(data.rows["training"], grader)
        if judged or job.asks("rlvr") or not wanted:
            wanted.append(("rlvr", job.rlvr, RLVRSpec, judged))
        else:
            notes.append("no RLVR: no training row has a `reference_answer` for the grader")
    for name, request, spec, num_problems in wanted:
        if num_problems == 0:
            raise PrepareError(
                "invalid_training_file",
                "No training row has a `reference_answer` for the grader to compare with; add "
                "them, or give a grader that needs none.",
                "training_file",
                [],
            )
        stages[name], why = choose_stage(
            name,
            given_fields(request, spec),
            wishes,
            num_problems=num_problems,
            num_parameters=num_parameters,
            device=device,
        )
        notes += why
    return stages, notes


def _num_judged(rows: Sequence[Row], grader: Any) -> int:
    needs_answer = getattr(grader, "needs_reference_answer", False)
    return sum(row.reference_answer is not None or not needs_answer for row in rows)


def _most_sequences(stages: Mapping[str, Mapping[str, Any]]) -> int:
    sizes = [s["groups_per_step"] * s["group_size"] for s in stages.values() if "group_size" in s]
    return max(sizes, default=1)
