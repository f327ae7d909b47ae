"""What every test may count on: the back end, the threads and the random state it starts with."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import hypothesis
except ImportError:  # the tests of the core run without it
    pass
else:
    # The same examples on every run, and no deadline: a shared machine stalls now and then.
    hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60, database=None)
    hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "parity: compares kernels with plain PyTorch; also run once for every instruction set of the machine"
    )


# What takes minutes comes first, so that no process is left alone with it at the end: compilers, the interpreter of
# Triton, and the first of the core's tests, which builds the core.
LONGEST = ("test_triton.py", "test_cuda_build.py", "test_packaging.py", "test_core_weight_clip.py", "test_trainer.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def require_native() -> None:
    """For tests of the compiled library: where it is missing they are skipped, but never in CI."""
    from wgan_kernels import build_info

    info = build_info()
    if not info["native"]:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test the compiled library, which is missing: {info['reason']}", pytrace=False)
        pytest.skip(f"the compiled library is missing: {info['reason']}")


@pytest.fixture(scope="session")
def triton() -> None:
    """For tests of the Triton kernels: where it is missing they are skipped, but never in CI."""
    if importlib.util.find_spec("triton") is None:
        if os.environ.get("CI"):
            pytest.fail("CI must test the Triton kernels, but the package triton is not installed", pytrace=False)
        pytest.skip("the package triton is not installed")


@pytest.fixture
def native() -> Iterator[None]:
    """The test runs on the compiled library."""
    from wgan_kernels import use_backend

    require_native()
    with use_backend("native"):
        yield


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once on each back end."""
    from wgan_kernels import use_backend

    if request.param == "native":
        require_native()
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    """A group of this process alone."""
    import torch

    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed")
    if torch.distributed.is_initialized():
        pytest.skip("another test has left its process group")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield torch.distributed.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.fixture
def one_and_two_threads() -> Iterator[tuple[int, int]]:
    """Thread counts to go through; the process gets its own back afterwards."""
    import torch

    threads = torch.get_num_threads()
    yield (1, 2)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    # The tests of the core run without torch; importing it here would cost them seconds.
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(20170331)
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()  # what one test compiled must not count against the next one's limit
