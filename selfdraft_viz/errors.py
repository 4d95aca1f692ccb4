"""The errors that selfdraft_viz raises on purpose.

All of them are `ValueError`s, and each message names the value, the range that would have been right, and the remedy.
"""

from __future__ import annotations


class SelfDraftError(ValueError):
    """Base class of every error below."""


class SettingsError(SelfDraftError):
    """A setting is out of range, or does not fit the model."""


class PromptError(SelfDraftError):
    """A prompt is empty, too long, or holds token ids that the model does not have."""


class UnsupportedModelError(SelfDraftError):
    """A model is of a family, or uses a feature, that cannot be run layer by layer here."""


class LoadError(SelfDraftError):
    """A model, its heads or a trace could not be read."""


class HeadsMismatchError(LoadError):
    """Exit heads were trained for another model."""


class NonFiniteLogitsError(SelfDraftError):
    """The model produced NaN or infinite logits."""
