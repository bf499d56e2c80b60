"""The work behind model selection, on local files. Runs in a Ray task of its own."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from serve_app.prepare import prepare
from serve_app.prepare_error import PrepareError
from serve_app.prepare_spec import load_model_at_hand
from train.auto.facts import ModelFacts
from train.data import read_rows
from train.prompts import PromptRenderer
from train.selection.budget import TrainingTime, devices_of, training_times
from train.selection.catalogue import Entry, Limits, NoCandidateError, within_limits
from train.selection.cost import Work
from train.selection.estimate import Throughput, estimate_parts
from train.selection.halving import NothingMeasuredError
from train.selection.probe import probe, probe_problems
from train.selection.ranking import Candidate, Measurement
from train.selection.selector import DynamicModelSelector
from train.selection.srl_probe import srl_probe
from train.spec import JobSpec
from train.spec_file import load_spec

BUDGETS = ("max_device_hours", "max_cost")


@dataclass(frozen=True)
class _Ready:
    """A candidate whose rows are prepared."""

    facts: ModelFacts
    spec: JobSpec


def select_model(
    request: Mapping[str, Any],
    path: Path,
    candidates: Mapping[str, str],
    cluster: Mapping[str, float],
    stated: Mapping[str, Mapping[str, Any]] | None = None,
    validation: Path | None = None,
    throughputs: Mapping[str, Throughput] | None = None,
) -> dict[str, Any]:
    """Choose among the candidates (name -> folder) on the rows of `path`; best first.

    `request`: "constraints", "seed", and either "job", the create call of the job that the model is
    for, whose prompt, sampling, protocol and grader are then those of the probe, or "grader" alone.
    `validation`: rows beside those of `path`, where the job has them in a file of their own.
    `stated`: what the service's catalogue says of models, fields of `Entry` by name.
    `throughputs`: measured on jobs of these models, by name.

    Raises PrepareError for rows that are wrong for every model, and when no model is left.
    """
    constraints = request["constraints"]
    given = {name: constraints[name] for name in Limits.model_fields if constraints.get(name)}
    # How long a job takes is known only once it is prepared.
    budget = Limits(**{name: given.pop(name) for name in BUDGETS if name in given})
    limits = Limits(**given)
    facts, unread = _facts(candidates)
    entries = [
        Entry(
            **{
                **(stated or {}).get(name, {}),
                "name": name,
                "path": candidates[name],
                "num_parameters": found.num_parameters,
                "context_tokens": found.max_positions,
            }
        )
        for name, found in facts.items()
    ]
    try:
        selector = DynamicModelSelector(entries, limits)
    except NoCandidateError as error:
        said = _listed(str(error), unread)
        raise PrepareError("no_model_within_limits", said, "constraints", []) from None
    files = {"training": path} | ({"validation": validation} if validation else {})
    with ExitStack() as stack:
        ready: dict[str, _Ready] = {}
        for entry in selector.entries:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            try:
                prepare(_job_body(entry.name, request), folder, files, entry.path, cluster)
            except PrepareError as error:
                unread.append(_not_measured(entry.name, entry.num_parameters, error))
                continue
            ready[entry.name] = _Ready(facts[entry.name], load_spec(folder / "spec.json"))
        if not ready:
            said = _listed("no model fits the rows and the cluster", unread)
            raise PrepareError("no_model_fits", said, None, [])

        times = _times(ready, throughputs or {})
        try:
            _, over = within_limits(
                [entry for entry in selector.entries if entry.name in ready],
                budget,
                {name: time.device_hours for name, time in times.items()},
            )
        except NoCandidateError as error:
            every = NoCandidateError((*selector.removed, *error.removed))
            said = _listed(str(every), unread)
            raise PrepareError("no_model_within_limits", said, "constraints", []) from None
        for one in over:
            del ready[one.name]
            size = facts[one.name].num_parameters
            unread.append(Candidate(one.name, size, reason=f"left out: {one.reason}"))

        def measure(name: str, first: int, last: int) -> Measurement:
            one = ready[name]
            return probe(one.spec, one.facts, first=first, last=last, k=constraints["k"])

        usable = min(len(probe_problems(one.spec)) for one in ready.values())
        num_problems = min(constraints["num_problems"], usable)
        try:
            choice = selector.choose(
                measure,
                num_problems=num_problems,
                k=constraints["k"],
                among=ready,
                srl_probe=lambda name: srl_probe(ready[name].spec, ready[name].facts),
            )
        except NothingMeasuredError as error:
            raise PrepareError("no_model_fits", _listed(str(error), unread), None, []) from None
    prices = {entry.name: entry.device_price_per_hour for entry in entries}
    shown = [
        replace(one, training=times[one.model_id].as_json(prices[one.model_id]))
        if one.model_id in times
        else one
        for one in (*choice.candidates, *unread)
    ]
    return {
        "candidates": [one.as_json() for one in shown],
        "selection_cost": choice.cost_json(),
    }


def _times(
    ready: Mapping[str, _Ready], throughputs: Mapping[str, Throughput]
) -> dict[str, TrainingTime]:
    """What each candidate's own job would take, where its rows show how long solutions are."""
    works: dict[str, Work] = {}
    for name, one in ready.items():
        model = load_model_at_hand(one.spec.model)
        rows = {"training": read_rows(one.spec.data.train)}
        rows["validation"] = read_rows(one.spec.data.valid)
        render = PromptRenderer(model.tokenizer, one.spec.prompt).render
        parts = estimate_parts(one.spec, rows, model.facts, render, model.count_tokens)
        expected = [part.expected for part in parts if part.expected is not None]
        if len(expected) == len(parts):
            works[name] = sum(expected, Work())
    devices = {name: devices_of(one.spec) for name, one in ready.items()}
    return training_times(works, throughputs, devices)


def _facts(candidates: Mapping[str, str]) -> tuple[dict[str, ModelFacts], list[Candidate]]:
    """The sizes of the models that can be read, and the others with the reason."""
    facts: dict[str, ModelFacts] = {}
    unread = []
    for name, folder in candidates.items():
        try:
            facts[name] = load_model_at_hand(folder).facts
        except PrepareError as error:
            unread.append(_not_measured(name, None, error))
    return facts, unread


def _listed(message: str, candidates: Iterable[Candidate]) -> str:
    """An error's message, and each candidate with its reason."""
    return "; ".join([message, *(f"{one.model_id}: {one.reason}" for one in candidates)])


def _not_measured(name: str, num_parameters: int | None, error: PrepareError) -> Candidate:
    """Acceptable: the model does not fit the rows or the cluster; the others are measured.

    Raises the error again where the rows themselves are wrong, for every model.
    """
    if error.param == "training_file":
        raise error
    return Candidate(name, num_parameters, reason=f"not measured: {error.message}")


def _job_body(name: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """A create call that would train the candidate: its prompts and limits are those probed."""
    if (job := request.get("job")) is not None:
        return _without_teacher(job) | {"model": name, "seed": request["seed"]}
    body: dict[str, Any] = {"model": name, "training_file": "rows", "seed": request["seed"]}
    if request.get("grader"):
        part = {"grader": request["grader"]}
        body["method"] = {"type": "reinforcement", "reinforcement": part}
        body["num_examples"] = "auto"
    return body


def _without_teacher(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job's create call; a teacher costs money, so that a probe asks none.

    Without its steps, stages that learn from steps cannot be prepared: whole problems are probed.
    """
    job = {name: value for name, value in job.items() if name != "more_examples"}
    if job.get("teacher") is None:
        return job
    stepwise = ("teacher", "documents", "num_examples", "sft", "srl")
    body = {name: value for name, value in job.items() if name not in stepwise}
    if body.get("rlvr", {}) is None:
        del body["rlvr"]
    method = body.get("method") or {}
    if method.get("type") == "srl":
        grader = method["srl"].get("grader")
        del body["method"]
        if grader is not None:
            part = {"grader": grader}
            body["method"] = {"type": "reinforcement", "reinforcement": part}
    return body | {"num_examples": 0}
