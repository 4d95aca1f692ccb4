"""How long OpenMP's threads wait for their next share of work before they sleep: told before torch loads it.

GNU's OpenMP, which torch and numba share, reads its environment once, when torch is imported. It gives every thread
that decodes a team of its own. Once the teams together have more threads than there are cores, a thread that waits
hardly spins at all: each of a token's eighty hand-overs then goes through the operating system, and a decode beside
the main thread, as an explorer's, takes 3.4 ms a token instead of 1.0. Told to be active it keeps spinning, here for
at most a fifth of a millisecond, so that other programs get the core; torch's own layers stay as fast as they were.
"""

from __future__ import annotations

import os

_TOLD = {
    "OMP_WAIT_POLICY": "ACTIVE",
    "GOMP_SPINCOUNT": "20000",
    "KMP_BLOCKTIME": "1",  # ms, of LLVM's and Intel's OpenMP, where active would mean for ever
}


def settle() -> None:
    """Set the environment, unless the user has set any of it. Without effect on an OpenMP that runs already."""
    if not _TOLD.keys() & os.environ.keys():
        os.environ.update(_TOLD)
