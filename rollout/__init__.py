"""Rollouts: engines that sample, verifiers that score, and the pool that joins them."""
