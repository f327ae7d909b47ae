"""Memory in which a kernel's mistakes show: every new tensor is poisoned, and lies between two guard bands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# The interpreter does not report what is written past the end of a tensor.
BAND = 4096
POISON = 0xFF  # NaN in every floating dtype


def _guarded(like: Tensor, regions: list[Tensor]) -> Tensor:
    """A tensor of the layout of `like`, dense or not, poisoned and guarded."""
    if type(like) is not Tensor or not like.is_cpu or torch._C._len_torch_dispatch_stack() > 0:
        return like
    numel = sum((n - 1) * s for n, s in zip(like.shape, like.stride())) + 1 if like.numel() > 0 else 0
    region = torch.full((numel * like.element_size() + 2 * BAND,), POISON, dtype=torch.uint8)
    regions.append(region)
    inner = region[BAND : BAND + numel * like.element_size()].view(like.dtype)
    return inner.as_strided(like.shape, like.stride(), inner.storage_offset()).detach()


def assert_untouched(regions: list[Tensor]) -> None:
    for region in regions:
        assert region[:BAND].eq(POISON).all(), "written before the beginning of a tensor"
        assert region[region.numel() - BAND :].eq(POISON).all(), "written past the end of a tensor"


@contextmanager
def guards() -> Iterator[None]:
    """What kernels are given to write to (torch.empty_like, new_empty) is guarded; the bands are read at the end."""
    regions: list[Tensor] = []
    empty_like, new_empty = torch.empty_like, torch.Tensor.new_empty
    torch.empty_like = lambda *args, **settings: _guarded(empty_like(*args, **settings), regions)

    def new(self: Tensor, *args: Any, **settings: Any) -> Tensor:
        return _guarded(new_empty(self, *args, **settings), regions)

    torch.Tensor.new_empty = new
    try:
        yield
    finally:
        torch.empty_like, torch.Tensor.new_empty = empty_like, new_empty
    assert_untouched(regions)
