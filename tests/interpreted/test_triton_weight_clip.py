"""The Triton kernel of clip_weights_: the CPU kernels' tests where they are short, and their cases where not."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, assert_same_bits
from guards import BAND, POISON
from test_weight_clip import (  # noqa: F401 - tests that run as they are
    BOUNDS,
    Critic,
    base_of,
    test_a_backward_through_weights_saved_before_the_clipping_raises,
    test_opcheck,
    test_takes_modules_tensors_and_iterables,
    test_the_mutation_is_visible_inside_and_after_a_compiled_step,
    test_under_no_grad_and_inference_mode,
    test_works_like_an_optimisers_step,
    weights,
)
from torch import Tensor

from wgan_kernels import clip_weights_
from wgan_kernels._triton import weight_clip as module

SIZES = [0, 1, 7, 17, module.BLOCK - 1, module.BLOCK, module.BLOCK + 1, 2 * module.BLOCK + 3]


def guarded(values: Tensor, shift: int) -> Tensor:
    """values with a guard band on either side, `shift` elements off the alignment of memory."""
    region = torch.full((2 * BAND + (values.numel() + shift) * values.element_size(),), POISON, dtype=torch.uint8)
    inner = region[BAND:].view(values.dtype)[shift : shift + values.numel()]
    return inner.copy_(values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_clamp_bit_for_bit_and_touches_nothing_else(backend: str, dtype: torch.dtype) -> None:
    for low, high in BOUNDS:
        ours = [guarded(weights((size,), dtype), shift) for size in SIZES for shift in (0, 1)]
        bases = [base_of(param).clone() for param in ours]
        theirs = [base.as_strided(p.shape, p.stride(), p.storage_offset()) for base, p in zip(bases, ours)]
        clip_weights_(ours, low, high)
        for param, other, base in zip(ours, theirs, bases, strict=True):
            other.clamp_(low, high)
            assert_same_bits(base_of(param), base, f"{param.shape} to [{low}, {high}]")


@pytest.mark.parametrize("layout", ["columns", "rows", "transposed", "permuted"])
def test_layouts(backend: str, layout: str) -> None:
    for dtype in DTYPES:
        ours = weights((5, 3, 4, 2), dtype, layout)
        memory = base_of(ours).clone()
        memory.as_strided(ours.shape, ours.stride(), ours.storage_offset()).clamp_(-0.3, 0.2)
        clip_weights_([ours], -0.3, 0.2)
        assert_same_bits(base_of(ours), memory, layout)


def test_one_launch_for_each_dtype_and_one_table_for_each_critic(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []
    kernel = module.clip_weights_kernel

    class Launches:
        def __getitem__(self, grid: tuple[int]) -> object:
            launches.append(grid)
            return kernel[grid]

    monkeypatch.setattr(module, "clip_weights_kernel", Launches())
    critic = Critic()
    for _ in range(2):
        clip_weights_(critic, 0.01)
    assert len(launches) <= 2 * 2 * len({param.dtype for param in critic.parameters()})
    made = len(module._tables)
    for _ in range(3):
        clip_weights_(critic, 0.01)
    assert len(module._tables) == made


def test_tables_are_dropped_but_not_those_of_graphs(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = [torch.full((3,), 2.0) for _ in range(module._MOST_TABLES + 5)]
    clip_weights_([params[0]], 1.0)
    memory = ((params[0].data_ptr(), 3),)
    cpu = torch.device("cpu")
    kept = module._table(cpu, memory, True)
    assert kept is not None and module._table(cpu, ((12345, 3),), True) is None, "made inside a graph"
    for param in params[1:]:
        clip_weights_([param], 1.0)
    assert len(module._tables) <= module._MOST_TABLES and (cpu, memory) not in module._tables
    assert module._table(cpu, memory, True) is kept and module._table(cpu, memory, False) is kept
    assert all(param.eq(1).all() for param in params)
