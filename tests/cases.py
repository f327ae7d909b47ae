"""Inputs that the tests share: dtypes, shapes around every size a kernel splits at, layouts, and plain formulas."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import wgan_kernels as wk

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NARROW = (torch.bfloat16, torch.float16)

# Rows are split at 16384 elements and walked by vectors of 4, 8 and 16, four at a time.
SHAPES = [
    (0, 3),
    (3, 0),
    (1, 1),
    (7,),
    (1, 17),
    (5, 2),
    (2, 3, 5, 7),
    (3, 4, 4, 4),
    (4, 63),
    (3, 131),
    (1, 16385),
]
LARGE = (2, 33_003)  # rows of several blocks, and enough for several threads

LAYOUTS = ("contiguous", "offset", "columns", "rows", "transposed", "permuted", "expanded", "expanded_batch")


def lay_out(x: Tensor, layout: str) -> Tensor:
    """The values of x in other places of memory. The expanded layouts repeat the first feature or the first sample."""
    last = x.dim() - 1
    if layout == "contiguous":
        return x.contiguous()
    if layout == "offset":  # one element past where an allocation starts, hence on no vector's boundary
        return x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x)
    if layout == "columns":  # x[..., ::2]
        return x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])[..., ::2].copy_(x)
    if layout == "rows":  # x[1::2]
        return x.new_zeros(2 * x.shape[0] + 1, *x.shape[1:])[1::2].copy_(x)
    if layout == "transposed":
        return x.transpose(0, last).contiguous().transpose(0, last)
    if layout == "permuted":  # channels_last for images
        if x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x.transpose(min(1, last), last).contiguous().transpose(min(1, last), last)
    if layout == "expanded":
        return x if x.dim() == 1 or x.shape[1] == 0 else x[:, :1].expand(x.shape)
    assert layout == "expanded_batch"
    return x[:1].expand(x.shape) if x.shape[0] else x


def samples(shape: tuple[int, ...], dtype: torch.dtype, layout: str = "contiguous", seed: int = 0) -> Tensor:
    """Normal numbers, repeatable whatever was drawn before."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lay_out(values.to(dtype), layout)


def leaf(x: Tensor) -> Tensor:
    """x in the same layout, as an input to differentiate by."""
    return x.detach().requires_grad_()


def has_native() -> bool:
    return wk.build_info()["native"]


def available_backends() -> list[str]:
    if not has_native() and os.environ.get("CI"):
        pytest.fail(f"CI must test the compiled library, which is missing: {wk.build_info()['reason']}", pytrace=False)
    return ["native", "reference"] if has_native() else ["reference"]


def each_backend() -> Iterator[str]:
    for name in available_backends():
        with wk.use_backend(name):
            yield name


def assert_same_error(call: Callable[[], Any], error: type[Exception], *words: str) -> None:
    """The call is refused with this error, which says all the words, and says the same on every back end."""
    messages = {}
    for name in each_backend():
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error, f"{name}: {type(caught.value)}"
        messages[name] = str(caught.value)
    for name, message in messages.items():
        for word in words:
            assert re.search(word, message), f"{name}: {word!r} is not in {message!r}"
    assert len(set(messages.values())) == 1, messages


def penalty(grad: Tensor, target: float = 1.0, one_sided: bool = False, reduction: str = "mean") -> Tensor:
    """The formula as people write it; the norm over all dimensions of a sample."""
    rows = grad.reshape(grad.shape[0], -1)
    # torch's norm adds up an expanded tensor one by one, which is too rough to measure others by.
    norms = rows.square().sum(1).sqrt() if grad.dtype == torch.float64 else rows.norm(2, dim=1)
    excess = norms - target
    each = (excess.clamp(min=0) if one_sided else excess) ** 2
    return {"none": lambda: each, "mean": each.mean, "sum": each.sum}[reduction]()


def value_and_derivatives(
    function: Callable[[Tensor], Tensor], x: Tensor, by_value: Tensor | None, by_grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """function(x); its gradient g for the outer gradient by_value; and the gradients of <g, by_grad> by x, by_value."""
    x = leaf(x)
    value = function(x)
    by_value = torch.ones_like(value) if by_value is None else by_value.to(value.dtype)
    by_value = leaf(by_value)
    (first,) = torch.autograd.grad(value, x, by_value, create_graph=True)
    second, second_by_value = torch.autograd.grad(first, (x, by_value), by_grad.to(first.dtype))
    return value.detach(), first.detach(), second, second_by_value


def form(x: Tensor) -> tuple[Any, ...]:
    """Shape, dtype and strides, but for those of single entries, over which nothing steps."""
    strides = [stride for size, stride in zip(x.shape, x.stride()) if size != 1]
    return tuple(x.shape), x.dtype, strides


def compile_once(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """torch.compile in one graph: all the way for the kernels; as far as tracing goes for the plain torch functions."""
    return torch.compile(function, fullgraph=True, backend="inductor" if backend == "native" else "aot_eager")


def copy_sources(tree: Path) -> Path:
    """The project's sources as a clone has them, with nothing built."""
    root = Path(__file__).parents[1]
    tree.mkdir()
    for name in ("setup.py", "cuda_toolkit.py", "pyproject.toml", "README.md", "LICENSE", "csrc", "wgan_kernels"):
        if (root / name).is_dir():
            unwanted = shutil.ignore_patterns("*.so", "_build.json", "__pycache__")
            shutil.copytree(root / name, tree / name, ignore=unwanted)
        else:
            shutil.copy(root / name, tree / name)
    return tree


def bits(x: Tensor) -> Tensor:
    """The bit patterns, with every NaN as one: its payload is nobody's promise."""
    x = torch.where(x.isnan(), torch.full_like(x, torch.nan), x)
    return x.contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[x.element_size()])


def assert_same_bits(actual: Tensor, expected: Tensor, what: str = "result") -> None:
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, what
    assert torch.equal(bits(actual), bits(expected)), what
