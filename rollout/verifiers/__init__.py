"""Verifiers: one file each, behind the protocol `rollout.types.Verifier`."""
