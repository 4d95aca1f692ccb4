"""Threads that wait awake, and a team that is given back."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP")


def test_threads_of_the_kernels_wait_for_microseconds_whoever_decodes() -> None:
    own = {name: value for name, value in os.environ.items() if not re.match("(OMP|GOMP|KMP)_", name)}
    script = "import selfdraft_viz as sv; sv.load(); import numba; print(numba.threading_layer())"
    for told, policy, spins in (({}, "ACTIVE", "20000"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE", "0")):
        process = subprocess.run(
            [sys.executable, "-c", script],
            env={**own, **told, "OMP_DISPLAY_ENV": "VERBOSE"},
            capture_output=True,
            text=True,
            check=True,
        )
        if process.stdout.strip() != "omp":
            pytest.skip("numba's threads are not OpenMP's here")
        for one in process.stderr.split("OPENMP DISPLAY ENVIRONMENT BEGIN")[1:]:  # torch's library, perhaps numba's own
            assert f"OMP_WAIT_POLICY = '{policy}'" in one
            assert f"GOMP_SPINCOUNT = '{spins}'" in one


GIVES_BACK = """
from pathlib import Path
import torch
from selfdraft_viz.openmp import give_team_back
from selfdraft_viz.widgets.run import Run

def threads():
    return sum(1 for _ in Path("/proc/self/task").iterdir())

def work():
    torch.randn(512, 512).matmul(torch.randn(512, 512))
    torch.randn(1 << 20).sum()

torch.set_num_threads(3)
give_team_back()
without = threads()
work()
print(threads() - without)
run = Run(event for event in ())
run.start()
assert run.wait(10) and run.error is None
print(threads() - without)
give_team_back()  # there is none
work()
print(threads() - without)
"""


def test_a_run_starts_with_the_callers_team_given_back() -> None:
    process = subprocess.run([sys.executable, "-c", GIVES_BACK], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["2", "0", "2"]
