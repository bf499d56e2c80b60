"""The arms of the benchmark: which stages, with which settings, for which share of the compute.

Compute is counted in forward tokens: a token through the engine (prompt or sampled) costs 1, a
token trained on (prompt or completion; forward and backward) costs 3. Validation is not counted;
an arm of two stages is validated twice as often as one of one stage. Every arm may use BUDGET; an
arm of two stages uses half of it for each. `srl` alone, the common start of `srl_continued` and
`srl_rlvr`, uses half, and so do its ablations.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from train.spec import RLVRSpec, SFTSpec, SRLSpec

BUDGET = 4_000_000
TRAIN_COST = 3  # forward and backward, in forward passes
VALIDATIONS_PER_STAGE = 4

StageKind = Literal["sft", "srl", "rlvr", "whole"]

SRL: dict[str, Any] = {"groups_per_step": 32, "learning_rate": 1e-4}
RLVR: dict[str, Any] = {"groups_per_step": 16, "learning_rate": 3e-4}
SFT: dict[str, Any] = {"batch_size": 32, "learning_rate": 1e-3}


@dataclass(frozen=True)
class Stage:
    """One stage of an arm."""

    name: str  # unique for its settings: stages of the same name and past are run once
    kind: StageKind
    share: float = 0.5  # of BUDGET
    settings: dict[str, Any] = field(default_factory=dict)  # over the defaults above
    filter_groups: bool = True  # False: no dynamic sampling, every group is learnt from

    def spec(self) -> Any:
        """The stage's specification as a job has it."""
        if self.kind == "sft":
            return SFTSpec(**SFT | self.settings)
        if self.kind == "rlvr":
            return RLVRSpec(**RLVR | self.settings)
        return SRLSpec(**SRL | self.settings)


_srl = Stage("srl", "srl")
_sft = Stage("sft", "sft")
_thoughts = {"with_thoughts": True}

ARMS: dict[str, tuple[Stage, ...]] = {
    "srl": (_srl,),
    "sft_steps": (Stage("sft-full", "sft", 1.0),),
    "sft_thoughts": (Stage("sft-thoughts-full", "sft", 1.0, _thoughts),),
    "rlvr": (Stage("rlvr-full", "rlvr", 1.0),),
    "srl_continued": (_srl, Stage("srl-on", "srl")),
    "srl_rlvr": (_srl, Stage("rlvr", "rlvr")),
    "sft_rlvr": (_sft, Stage("rlvr", "rlvr")),
    "sft_thoughts_rlvr": (Stage("sft-thoughts", "sft", 0.5, _thoughts), Stage("rlvr", "rlvr")),
}
ABLATIONS: dict[str, tuple[Stage, ...]] = {
    "srl_every_group": (Stage("srl-every-group", "srl", filter_groups=False),),
    "srl_all_but_last": (Stage("srl-n-1", "srl", settings={"targets": "all_but_last"}),),
    "srl_whole_solution": (Stage("srl-whole", "whole"),),
}
