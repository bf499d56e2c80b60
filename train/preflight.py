"""Before anything starts: does the job make sense, and does the cluster have what it asks for?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout.verifiers.base import InvalidVariableError
from rollout.verifiers.templates import check_item
from train.data import DataError, Row, check_disjoint, read_rows
from train.experts.by_teacher import NothingToAskError, askable_rows
from train.experts.engine_teacher import EngineTeacherSpec
from train.experts.families import FAMILIES, Solution, solve
from train.experts.solver import fault
from train.prompts import PromptRenderer, check_lengths, load_tokenizer
from train.spec import JobSpec, MoreExamplesSpec, SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MAX_EXPERTS_GRADED = 64


@dataclass(frozen=True)
class JobData:
    """The checked rows of a job; `heldout` is empty when the job has no such file."""

    train: list[Row]
    valid: list[Row]
    heldout: list[Row]


def check_job(spec: JobSpec) -> tuple[JobData, PromptRenderer]:
    """Check model and data without starting anything. Raises ValueError with the fix."""
    train, valid = read_rows(spec.data.train), read_rows(spec.data.valid)
    heldout = read_rows(spec.data.heldout) if spec.data.heldout else []
    pairs = _files(spec, train, valid, heldout)
    if len({path for path, _ in pairs}) < len(pairs):
        raise DataError(
            f"data: one file has two uses among {', '.join(str(path) for path, _ in pairs)}; give "
            "each its own rows"
        )
    check_disjoint(dict(pairs))
    if (spec.srl or spec.sft) and not any(row.expert_steps for row in train):
        stage = "srl" if spec.srl else "sft"
        raise DataError(
            f"{spec.data.train}: no row has `expert_steps`, which stage {stage} learns from; add "
            f"them to some rows or remove `{stage}`"
        )
    if spec.sft and spec.sft.with_thoughts:
        _check_thoughts(spec.data.train, train)
    if getattr(spec.grader, "type", None) == "step_similarity":
        raise SpecError(
            "grader: is 'step_similarity', SRL's own reward, which judges single steps; give the "
            "grader of whole solutions, such as {type: answer}"
        )
    if spec.more_examples is not None:
        _check_more_examples(spec, spec.more_examples, train)
    graded = _files(spec, train if spec.rlvr else [], valid, heldout)
    if getattr(spec.grader, "needs_reference_answer", False):
        for path, rows in graded:
            if rows and not any(row.reference_answer for row in rows):
                raise DataError(
                    f"{path}: no row has a `reference_answer` for the grader to compare with", path
                )
    for grader in _graders(spec.grader):
        _check_grader(grader, graded)
    config = config_of(spec.model)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and spec.rollout.max_model_len > limit:
        raise SpecError(
            f"rollout.max_model_len: is {spec.rollout.max_model_len}, but model {spec.model} "
            f"holds {limit} positions; lower it to {limit} or less"
        )
    renderer = PromptRenderer(load_tokenizer(spec), spec.prompt)
    for path, rows in pairs:
        check_lengths(spec, renderer, path, rows)
    _check_expert_answers(spec, train)
    return JobData(train, valid, heldout), renderer


def _check_expert_answers(spec: JobSpec, train: list[Row]) -> None:
    """Refuse a grader of answers that calls every expert wrong: it could choose no checkpoint."""
    grader: Any = spec.grader
    if not (spec.srl or spec.sft) or grader.type != "answer":  # others may cost money or time
        return
    titled = spec.srl is not None and spec.srl.title_context  # the policy writes no titles then
    known = [row for row in train if row.expert_steps and row.reference_answer is not None]
    known = known[:MAX_EXPERTS_GRADED]
    for row in known:
        ways = [row.expert_steps]
        if titled:
            ways.append(tuple(row.titled_step(k)[1] for k in range(len(row.expert_steps))))
        for steps in ways:
            solution = Solution("expert", steps, str(row.reference_answer))
            if fault(row, solution, grader, spec.sampling.protocol) is None:
                return
    if known:
        row = known[0]
        raise DataError.at(
            spec.data.train,
            row.line,
            f"by the grader no expert solution is right, of {len(known)} that were graded; this "
            f"one ends with {row.expert_steps[-1]!r}, its reference_answer is "
            f"{row.reference_answer!r}: give a grader.pattern whose group holds the answer in the "
            "last step, or correct the steps",
        )


def _check_more_examples(spec: JobSpec, more: MoreExamplesSpec, train: list[Row]) -> None:
    """Check that somebody could write them, and read what is to be read. Raises ValueError."""
    try:
        grader: Any = spec.grader
        askable = askable_rows(train, grader, by_solver=more.teacher is None)
    except NothingToAskError as error:
        raise DataError(f"{spec.data.train}: more_examples: {error}", spec.data.train) from None
    if more.teacher is None and not any(solve(row.problem_text) for row in askable):
        raise DataError(
            f"{spec.data.train}: more_examples: no problem without expert_steps is of a family "
            f"that the solver knows ({', '.join(FAMILIES)}); give more_examples.teacher",
            spec.data.train,
        )
    if isinstance(more.teacher, EngineTeacherSpec):
        try:
            config_of(more.teacher_model or more.teacher.model)
        except SpecError as error:
            raise SpecError(f"more_examples.teacher.{error}") from None
    for path in more.documents:
        try:
            path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(
                f"more_examples.documents: {path} cannot be read as UTF-8 text ({error}); correct "
                "the path, or leave it out"
            ) from None


def config_of(model: str) -> "PretrainedConfig":
    """Load a model's configuration. Raises SpecError when there is no such model."""
    from transformers import AutoConfig

    folder = Path(model)
    if folder.is_absolute() and not folder.is_dir():
        raise SpecError(f"model: there is no folder {model}; correct the path")
    if (folder / "config.json").exists() and not any(folder.glob("*.safetensors")):
        raise SpecError(
            f"model: {model!r} holds no *.safetensors; save it with "
            "save_pretrained(folder, safe_serialization=True)"
        )
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"model: {model!r} is no model ({str(error).splitlines()[0]}); give a hub name, "
            "or a folder (written ./, ../ or /) with config.json, tokenizer.json and "
            "model.safetensors"
        ) from None


def resources_asked(spec: JobSpec) -> dict[str, float]:
    """Logical {"CPU", "GPU"} that the job holds while it runs."""
    learner, rollout = spec.learner, spec.rollout
    cpus = learner.num_workers * learner.cpus_per_worker
    gpus = learner.num_workers * learner.gpus_per_worker
    if spec.more_examples and isinstance(teacher := spec.more_examples.teacher, EngineTeacherSpec):
        # No learner runs while the teacher's engines do.
        cpus = max(cpus, teacher.num_engines * teacher.cpus_per_engine)
        gpus = max(gpus, teacher.num_engines * teacher.gpus_per_engine)
    return {
        "CPU": cpus
        + rollout.num_engines * rollout.cpus_per_engine
        + rollout.num_verifiers * rollout.cpus_per_verifier,
        "GPU": gpus + rollout.num_engines * rollout.gpus_per_engine,
    }


def check_cluster(spec: JobSpec, available: Mapping[str, float]) -> None:
    """Compare what the job asks for with the cluster's resources. Raises SpecError."""
    learner, rollout = spec.learner, spec.rollout
    cpus = available.get("CPU", 0.0)
    if learner.num_workers > cpus:
        raise SpecError(
            f"learner.num_workers: is {learner.num_workers}, but the cluster has {cpus:g} CPUs; "
            f"set it to {max(1, int(cpus))} or less"
        )
    for kind, amount in resources_asked(spec).items():
        if amount > available.get(kind, 0.0) + 1e-9:
            raise SpecError(
                f"the job asks for {amount:g} {kind}s (learner.num_workers "
                f"{learner.num_workers}, rollout.num_engines {rollout.num_engines}, "
                f"rollout.num_verifiers {rollout.num_verifiers}{_teachers_part(spec)}), but the "
                f"cluster has {available.get(kind, 0.0):g}; lower one of these or add nodes"
            )


def _teachers_part(spec: JobSpec) -> str:
    """The engines of a teacher between the stages, which take the learner's place."""
    if spec.more_examples is None or not isinstance(spec.more_examples.teacher, EngineTeacherSpec):
        return ""
    return f", more_examples.teacher.num_engines {spec.more_examples.teacher.num_engines}"


def _graders(grader: Any) -> list[Any]:
    """The grader, and those that it is made of."""
    return [grader, *getattr(grader, "graders", {}).values()]


def _check_grader(grader: Any, files: list[tuple[Path, list[Row]]]) -> None:
    """Check what a grader needs: a sandbox here, fields and reference solutions in the rows."""
    if grader.type in ("code_tests", "python"):
        from rollout.sandbox import SandboxUnavailableError, shared_pool

        try:
            shared_pool()
        except SandboxUnavailableError as error:
            raise SpecError(f"grader: {error}") from None
    templates = grader.templates() if hasattr(grader, "templates") else []
    for path, rows in files:
        for row in rows:
            for template in templates:
                try:
                    check_item(template, row.item)
                except InvalidVariableError as error:
                    raise DataError.at(
                        path,
                        row.line,
                        f"grader {grader.type!r} reads {error}; add the field to the row, or "
                        "correct the template",
                    ) from None
        if hasattr(grader, "check_references"):
            try:
                grader.check_references(rows)
            except ValueError as error:
                raise DataError(f"{path}, {error}", path) from None


def _check_thoughts(path: Path, rows: list[Row]) -> None:
    for row in rows:
        if row.expert_steps and not row.expert_thoughts:
            raise DataError.at(
                path,
                row.line,
                "has no `expert_thoughts`, which sft.with_thoughts needs, one per step; add them "
                "or set sft.with_thoughts: false",
            )


def _files(
    spec: JobSpec, train: list[Row], valid: list[Row], heldout: list[Row]
) -> list[tuple[Path, list[Row]]]:
    pairs = [(spec.data.train, train), (spec.data.valid, valid)]
    return pairs + ([(spec.data.heldout, heldout)] if spec.data.heldout else [])
