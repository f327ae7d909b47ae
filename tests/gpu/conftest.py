"""What runs on a GPU: `make gpu` there; elsewhere these tests are skipped with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
# `make gpu` sets it: a back end that is missing is then an error.
REQUIRED = os.environ.get("WGAN_KERNELS_TEST_GPU") == "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: runs on a GPU")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REQUIRED and not torch.cuda.is_available():
        raise pytest.UsageError("WGAN_KERNELS_TEST_GPU=1, but torch sees no CUDA device")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device: `make gpu` runs this where one is"))


def missing(name: str) -> str | None:
    """Why a back end cannot serve the first GPU."""
    from wgan_kernels import _extension, _toolchain

    if name == "native":
        return _extension.why_not_cuda(torch.device("cuda", 0))
    return _toolchain.WHY_NOT


def require(name: str) -> None:
    if reason := missing(name):
        (pytest.fail if REQUIRED else pytest.skip)(f"the {name} back end does not serve this GPU: {reason}")


@pytest.fixture(params=["native", "triton"])
def back_end(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once on each back end that has GPU kernels."""
    from wgan_kernels import use_backend

    require(request.param)
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def native_on_gpu() -> Iterator[None]:
    """The test runs on the compiled library."""
    from wgan_kernels import use_backend

    require("native")
    with use_backend("native"):
        yield
