"""Chat: few engines that answer for many models, each sampled as it was trained."""
