"""MinibatchDiscrimination over the ranks of a process group: the cases of distributed_minibatch.py, in one launch of
torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributed_minibatch import CASES


@pytest.fixture(scope="module")
def launch() -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here}:{here.parent}"}
    return subprocess.run(
        [*command, str(here / "distributed_minibatch.py"), *CASES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("case", CASES)
def test_ranks(launch: subprocess.CompletedProcess[str], case: str) -> None:
    assert f"{case} done\n" in launch.stdout, launch.stderr[:4000]


def test_nothing_fails_at_the_end(launch: subprocess.CompletedProcess[str]) -> None:
    assert launch.returncode == 0, launch.stderr[:4000]
