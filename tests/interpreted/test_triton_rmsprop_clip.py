"""The Triton kernel of rmsprop_clip_: the CPU kernels' tests, and its own cases: tables, alignments and graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, assert_same_bits
from guards import BAND, POISON
from test_clipped_rmsprop import (  # noqa: F401 - tests that run as they are
    test_a_group_may_go_without_a_clip,
    test_grad_scaler,
    test_settings_may_change_on_the_way,
    test_stats_of_a_step,
)
from test_rmsprop_clip import (  # noqa: F401 - tests that run as they are
    SETTINGS,
    arguments,
    assert_is_rmsprop,
    call,
    test_a_compiled_step_is_the_eager_one,
    test_a_variance_that_rounding_makes_negative_is_zero,
    test_clip_weights_says_what_became_of_them,
    test_nan_and_infinity_pass_as_in_torch,
    test_nothing_is_done_where_an_infinity_was_found,
    test_numbers_that_are_tensors,
    test_stats_are_counted_in_the_same_pass,
)
from torch import Tensor

from wgan_kernels._triton import rmsprop_clip as module

SIZES = [0, 1, 7, 17, module.BLOCK - 1, module.BLOCK, module.BLOCK + 1, 2 * module.BLOCK + 3]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_is_rmsprop_and_clamp(backend: str, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    assert_is_rmsprop(dtype, settings, [(size,) for size in SIZES[:6]] + [(2, 3, 5, 7), ()])


@pytest.mark.parametrize("layout", ["columns", "offset", "transposed"])
def test_layouts(backend: str, layout: str) -> None:
    for of_grad in ("contiguous", layout, "expanded"):
        assert_is_rmsprop(torch.bfloat16, SETTINGS[3], [(5, 3, 4, 2), (7,)], layout, of_grad)


def guarded(values: Tensor, shift: int) -> Tensor:
    """values with a guard band on either side, `shift` elements off the alignment of memory."""
    region = torch.full((2 * BAND + (values.numel() + shift) * values.element_size(),), POISON, dtype=torch.uint8)
    inner = region[BAND:].view(values.dtype)[shift : shift + values.numel()]
    return inner.copy_(values)


def assert_guards(x: Tensor) -> None:
    region = torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
    begin = x.storage_offset() * x.element_size()
    assert region[:begin].eq(POISON).all() and region[begin + x.numel() * x.element_size() :].eq(POISON).all()


@pytest.mark.parametrize("capturing", [False, True], ids=["table", "graph"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_touches_nothing_else(
    backend: str, dtype: torch.dtype, capturing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a table, and in a graph that has none: the same bits."""
    results = []
    for shift in (0, 1):
        given = arguments(dtype, [(size,) for size in SIZES])
        for name in ("params", "grads", "square_avgs", "momentum_buffers", "grad_avgs"):
            given[name] = [guarded(x, shift) for x in given[name]]
        if capturing:
            monkeypatch.setattr(module, "_table", lambda *_: None)
        written = call(given)
        for name in ("params", "grads", "square_avgs", "momentum_buffers", "grad_avgs"):
            for x in given[name]:
                assert_guards(x)
        results.append(written)
        monkeypatch.undo()
        plain = arguments(dtype, [(size,) for size in SIZES])
        for a, b in zip(written, call(plain), strict=True):
            assert_same_bits(a, b) if a.is_floating_point() else None
    assert len(results) == 2


def test_nothing_is_tuned() -> None:
    """A step that is timed has been made."""
    assert not hasattr(module.rmsprop_clip_kernel, "configs") and not hasattr(module.rmsprop_clip_one_kernel, "configs")


def test_one_launch_for_each_dtype(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []
    kernel = module.rmsprop_clip_kernel

    class Launches:
        def __getitem__(self, grid: tuple[int]) -> object:
            launches.append(grid)
            return kernel[grid]

    monkeypatch.setattr(module, "rmsprop_clip_kernel", Launches())
    given = arguments(torch.float32, [(k,) for k in range(1, 30)])
    call(given)
    assert 1 <= len(launches) <= 2  # those that 16 divides, and the others
