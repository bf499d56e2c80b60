"""Estimates of proportions, and how sure they are. Pure."""

import math

Z95 = 1.959964


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): k of n samples hold one of the c right ones.

    Source: Chen et al., arXiv 2107.03374, equation 1.
    """
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def wilson_interval(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson, 1927), or of the mean of n shares in [0, 1].

    `successes` is their sum.
    """
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends of [0, 1] both are equal but for rounding.
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    return low, 1.0 if successes >= n else min(1.0, centre + half)


def bonett_price_interval(gained: int, lost: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a difference of paired proportions, (gained - lost) / n.

    Of n pairs, `gained` succeed only in the first condition, `lost` only in the second.
    Source: Bonett and Price, J. Educ. Behav. Stat. 37(4), 2012: Wald's with one added to each.
    """
    p, q = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return max(-1.0, p - q - half), min(1.0, p - q + half)
