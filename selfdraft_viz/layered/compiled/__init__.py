"""Llama-like models on a CPU through kernels compiled by numba: a whole segment of layers in one call.

Importing this package imports no numba; the kernels do, when a model is first laid out for them.
"""

from selfdraft_viz.layered.compiled.model import CompiledModel, reason_against
from selfdraft_viz.layered.compiled.staircase import CompiledStaircase

__all__ = ["CompiledModel", "CompiledStaircase", "reason_against"]
