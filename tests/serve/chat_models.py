"""Small models for the chat tests, and the rows that make one a trained model of a project."""

import json
import secrets
import shutil
from pathlib import Path

from conftest import JOB, MODEL

from serve_app.ids import new_id
from serve_app.store.database import Database
from serve_app.store.jobs import create_job, new_job
from serve_app.store.tables import Model
from train.spec_file import load_spec, spec_to_json

HELDOUT = JOB.parent / "heldout.jsonl"
NOISE = 0.3  # of a weight's spread: seeds 1 and 3 then answer every held-out row differently


def heldout(num_rows: int) -> list[dict]:
    """The quickstart's first held-out rows."""
    lines = HELDOUT.read_text(encoding="utf-8").splitlines()[:num_rows]
    return [json.loads(line) for line in lines]


def perturbed(folder: Path, seed: int) -> Path:
    """A model of the embedded one's architecture with other weights, saved as training does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += NOISE * parameter.std(unbiased=False) * noise
    model.config.use_cache = False
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return folder


def other_architecture(folder: Path) -> Path:
    """A model of other shapes with the same tokenizer and random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(MODEL)
    config.num_hidden_layers, config.layer_types = 2, ["full_attention"] * 2
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(MODEL / name, folder / name)
    return folder


def add_trained(
    database: Database, project_id: str, path: Path, *, name: str | None = None, **changes
) -> str:
    """Write a finished job and its model, sampled as the quickstart's; return the model's name.

    `changes` replace whole sections of the specification.
    """
    spec = spec_to_json(load_spec(JOB)) | changes
    job_id = new_id("ftjob-")
    name = name or f"ft:ferrata-tiny:ferrata::{secrets.token_hex(4)}"
    with database.write() as session:
        job = new_job(
            project_id=project_id,
            request={},
            out=str(path),
            model="ferrata-tiny",
            seed=1,
            job_id=job_id,
        )
        job.spec = spec
        create_job(session, job)
        session.add(
            Model(
                name=name,
                project_id=project_id,
                job_id=job_id,
                kind="fine_tuned",
                path=str(path),
                created_at=1,
            )
        )
    return name
