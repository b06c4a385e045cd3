"""Collectives on GPU memory: plans of all ranks at once, the kernels that run them, and the engine."""
