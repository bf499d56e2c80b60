"""How many threads torch computes with on CPU, and a first call that one thread makes alone.

torch hands sines, roots and their like to Intel MKL, which chooses its code for each at its first
call. When several threads make that call at once, one of them now and then runs code of low
precision for its whole share: off by 1e-4 and more, in that one call (pytorch/pytorch issue 188792,
seen with MKL 2024.2). A forward pass takes sines first, the learner's AdamW roots: a new process's
first step would not be the step of another run. What was seen here:
`docs/decisions/0007-one-first-step-off-by-1e-4.md`.
"""

# torch's names of the functions that it leaves to MKL, each in float32 and in float64.
FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp"),
    *("log", "log10", "log2", "sin", "sqrt", "tan", "tanh", "trunc"),
)


def use_threads(num_threads: int) -> None:
    """Compute with so many threads in this process from here on.

    To be called before anything is computed: it makes the first calls.
    """
    import torch

    torch.set_num_threads(num_threads)
    for dtype in (torch.float32, torch.float64):
        half = torch.full((1,), 0.5, dtype=dtype)  # too few for a second thread
        for name in FUNCTIONS:
            getattr(torch, name)(half)
