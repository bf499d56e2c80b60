"""Shared pieces: the embedded model, and a job small enough for a test."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "ferrata-tiny"
JOB = ROOT / "examples" / "quickstart" / "job.yaml"


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The tiny base model's folder."""
    return MODEL
