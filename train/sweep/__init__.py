"""Sweeps: many settings of one job by Ray Tune and ASHA, each trial an ordinary job."""
