"""What all tests share: no network, hypothesis profiles, the embedded model."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of several processes on few cores only wait for each other

import pytest
from hypothesis import HealthCheck, settings

import selfdraft_viz as sv

_COMMON = {
    "deadline": None,  # the first example of a kind pays for imports and for building a model
    "suppress_health_check": [HealthCheck.too_slow],
    "print_blob": True,
}
settings.register_profile("default", max_examples=50, **_COMMON)
settings.register_profile("ci", max_examples=50, derandomize=True, **_COMMON)
settings.register_profile("thorough", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture(scope="session")
def embedded() -> sv.Model:
    """The embedded model with whatever ships beside it. Shared: change nothing in it."""
    return sv.load(device="cpu")
