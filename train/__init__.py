"""Training: SRL, then RLVR, through one loop."""
