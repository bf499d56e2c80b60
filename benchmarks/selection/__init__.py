"""How well model selection ranks real checkpoints, and how far its cost model is off."""
