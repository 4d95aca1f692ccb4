"""How OpenMP's threads wait for their next share of work, and who has them.

GNU's OpenMP, which torch and numba share, gives every thread that decodes a team of its own. Once the teams together
have more threads than there are cores, a thread that waits hardly spins at all: each of a token's eighty hand-overs
then goes through the operating system, and a decode beside the main thread, as an explorer's, takes 3.4 ms a token
instead of 1.0.

Two things are done about it. The environment, which that library reads once, when torch is imported, tells it to be
active: to keep spinning, here for at most a fifth of a millisecond, so that other programs get the core; torch's own
layers stay as fast as they were. And before a decode begins beside it, a thread gives its team back; it gets a new one
with its next parallel operation.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_SOFT_PAUSE = 1  # omp_pause_soft (OpenMP 5.0, 3.2.44)
_TOLD = {
    "OMP_WAIT_POLICY": "ACTIVE",
    "GOMP_SPINCOUNT": "20000",
    "KMP_BLOCKTIME": "1",  # ms, of LLVM's and Intel's OpenMP, where active would mean for ever
}


def settle() -> None:
    """Set the environment, unless the user has set any of it. Without effect on an OpenMP that runs already."""
    if not _TOLD.keys() & os.environ.keys():
        os.environ.update(_TOLD)


def give_team_back() -> None:
    """End the threads that OpenMP keeps for the calling thread; without effect where it is not GNU's."""
    if not sys.platform.startswith("linux"):
        return
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    libraries = {line.split(maxsplit=5)[-1] for line in mapped if "/libgomp" in line}  # torch's, numba's own
    for path in sorted(libraries):
        try:
            ctypes.CDLL(path).omp_pause_resource_all(_SOFT_PAUSE)
        except (OSError, AttributeError):  # before GCC 9
            continue
