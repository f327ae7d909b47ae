"""mmd2 over the ranks of a process group: the cases of distributed_mmd.py, in one launch of torchrun."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed_mmd import CASES

from wgan_kernels import mmd2
from wgan_kernels.kernels import RBF

NEEDS = {"metric": "torchmetrics"}


def missing(case: str) -> bool:
    return case in NEEDS and importlib.util.find_spec(NEEDS[case]) is None


@pytest.fixture(scope="module")
def launch() -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here}:{here.parent}"}
    return subprocess.run(
        [*command, str(here / "distributed_mmd.py"), *[case for case in CASES if not missing(case)]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("case", CASES)
def test_ranks(launch: subprocess.CompletedProcess[str], case: str) -> None:
    if missing(case):
        pytest.skip(f"{NEEDS[case]} is not installed")
    assert f"{case} done\n" in launch.stdout, launch.stderr[:4000]


def test_nothing_fails_at_the_end(launch: subprocess.CompletedProcess[str]) -> None:
    assert launch.returncode == 0, launch.stderr[:4000]


def test_without_a_process_group() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="call torch.distributed.init_process_group first"):
        mmd2(x, x, RBF(1.0), group=object())


def test_what_is_no_group(tmp_path: Path) -> None:
    x = torch.zeros(3, 2)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for bad, words in ((3, "got int"), (dist.GroupMember.NON_GROUP_MEMBER, "this process is not a member")):
            with pytest.raises(TypeError, match=f"group must be a process group of torch.distributed.*{words}"):
                mmd2(x, x, RBF(1.0), group=bad)
        assert torch.equal(mmd2(x, x + 1, RBF(1.0), group=dist.group.WORLD), mmd2(x, x + 1, RBF(1.0)))
    finally:
        dist.destroy_process_group()
