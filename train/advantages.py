"""Group advantages: how much better than its group was a rollout?

Pure functions over one group's rewards r_1..r_G. The population standard deviation is used
throughout, also by the filter (`rollout.collector`).
"""

from collections.abc import Sequence
from statistics import fmean, pstdev

EPSILON = 1e-6  # keeps a group whose rewards nearly tie from dividing by nothing


def grpo(rewards_G: Sequence[float]) -> list[float]:
    """A_i = (r_i - mean) / (std + eps). GRPO, arXiv 2402.03300, equation 3."""
    mean, std = fmean(rewards_G), pstdev(rewards_G)
    return [(r - mean) / (std + EPSILON) for r in rewards_G]


def dr_grpo(rewards_G: Sequence[float]) -> list[float]:
    """A_i = r_i - mean: no division, hence no bias towards near-ties. arXiv 2503.20783."""
    mean = fmean(rewards_G)
    return [r - mean for r in rewards_G]


def rloo(rewards_G: Sequence[float]) -> list[float]:
    """A_i = r_i - mean of the others. RLOO, arXiv 2402.14740. Needs G >= 2."""
    total, num_others = sum(rewards_G), len(rewards_G) - 1
    return [r - (total - r) / num_others for r in rewards_G]


ADVANTAGES = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo}
