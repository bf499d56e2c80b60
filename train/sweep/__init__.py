"""Sweeps: many settings of one job by Ray Tune, each trial an ordinary job."""
