"""The first call of torch's vector functions on CPU, made by one thread alone.

torch hands sines, cosines and their like to Intel MKL, which chooses its code at the first call.
When several threads make that call at once, a part of the result is now and then of low precision,
off by 1.5e-4 (pytorch/helion, pull request 3598): a first step that is not the step of another run.
What was seen here, and what not: `docs/decisions/0007-one-first-step-off-by-1e-4.md`.
"""

FUNCTIONS = ("cos", "sin", "exp", "log", "tanh", "erf")


def settle() -> None:
    """Call each function once on one number: too few for a second thread."""
    import torch

    one = torch.ones(1)
    for name in FUNCTIONS:
        getattr(torch, name)(one)
