"""One Hugging Face causal LM, run layer by layer over a staircase of keys and values."""

from selfdraft_viz.layered.families import FAMILIES, Family, family_of
from selfdraft_viz.layered.model import LayeredModel
from selfdraft_viz.layered.staircase import LayerRun, Staircase
from selfdraft_viz.layered.static import ExitGraph

__all__ = ["FAMILIES", "ExitGraph", "Family", "LayerRun", "LayeredModel", "Staircase", "family_of"]
