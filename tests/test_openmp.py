"""Threads that wait awake, and a team that is given back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selfdraft_viz import openmp
from selfdraft_viz.widgets.run import Run

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


def test_a_run_starts_with_the_callers_team_given_back() -> None:
    def threads() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    def work() -> None:
        torch.randn(512, 512).matmul(torch.randn(512, 512))
        torch.randn(1 << 20).sum()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        openmp.give_team_back()
        without = threads()
        work()
        assert threads() > without
        run = Run(event for event in ())
        run.start()
        assert run.wait(10)
        assert run.error is None
        assert threads() <= without
        openmp.give_team_back()  # there is none
        work()
        assert threads() > without
    finally:
        torch.set_num_threads(before)
