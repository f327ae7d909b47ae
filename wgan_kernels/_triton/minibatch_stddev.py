"""minibatch_stddev: a program has some numbers of a group of samples, and goes over the samples for all of them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import device_of, in_layout_of, in_rows, narrowed, operator, widened, wrap_triton

VALUE, BACKWARD, DOUBLE_BACKWARD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
BLOCK = 512  # numbers of a program


@triton.jit(do_not_specialize=["G", "rows", "numbers"])
def minibatch_stddev_kernel(
    x, u, grad_value, parts, grad_x, G, rows, numbers, PASS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """x, u, grad_x: [G, rows, numbers]; grad_value: [rows]; parts: [rows, blocks] float64, of which the means are."""
    blocks = tl.maximum(tl.cdiv(numbers, BLOCK), 1)
    row, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    number = block * BLOCK + tl.arange(0, BLOCK)
    inside, at, step = number < numbers, row * numbers + number, rows.to(tl.int64) * numbers
    mean, u_mean = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for g in range(0, G):
        mean += widened(tl.load(x + g * step + at, mask=inside, other=0.0))
        if PASS == DOUBLE_BACKWARD:
            u_mean += widened(tl.load(u + g * step + at, mask=inside, other=0.0))
    mean, u_mean = mean / G, u_mean / G
    squares, covariance = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for g in range(0, G):
        centred = widened(tl.load(x + g * step + at, mask=inside, other=0.0)) - mean
        squares += centred * centred
        if PASS == DOUBLE_BACKWARD:
            covariance += widened(tl.load(u + g * step + at, mask=inside, other=0.0)) * centred
    covariance = covariance / G
    deviation = tl.sqrt(squares / G + 1e-8)
    if PASS != VALUE:
        factor = widened(tl.load(grad_value + row)) / (numbers.to(tl.float64) * G) / deviation
        for g in range(0, G):
            grad = widened(tl.load(x + g * step + at, mask=inside, other=0.0)) - mean
            if PASS == DOUBLE_BACKWARD:
                tangent = widened(tl.load(u + g * step + at, mask=inside, other=0.0)) - u_mean
                grad = tangent - covariance / (deviation * deviation) * grad
            tl.store(grad_x + g * step + at, narrowed(factor * grad, grad_x.dtype.element_ty), mask=inside)
    if PASS != BACKWARD:
        term = covariance / deviation if PASS == DOUBLE_BACKWARD else deviation
        tl.store(parts + row * blocks + block, tl.sum(tl.where(inside, term, 0.0), 0))


def _go_over_groups(
    x: Tensor, u: Tensor, grad_value: Tensor, grad_x: Tensor, group_size: int, num_channels: int, of_pass: int
) -> Tensor:
    """The kernel, on rows; the means [B / group_size, num_channels] in the dtype of x."""
    groups = x.shape[0] // group_size
    numbers = x.numel() // max(x.shape[0], 1) // num_channels
    blocks = max(1, triton.cdiv(numbers, BLOCK))
    parts = x.new_empty((groups, num_channels, blocks), dtype=torch.float64)
    if parts.numel() > 0:
        with device_of(x):
            wrap_triton(minibatch_stddev_kernel)[(parts.numel(),)](
                x, u, grad_value, parts, grad_x, group_size, groups * num_channels, numbers,
                PASS=of_pass, BLOCK=BLOCK,
            )  # fmt: skip
    return (parts.sum(-1) / numbers).to(x.dtype) if numbers else x.new_full((groups, num_channels), torch.nan)


def _in_blocks(num_channels: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in one order of memory. With one block of numbers any order of a sample's numbers will do."""
    return in_rows(*tensors) if num_channels == 1 else tuple(each.contiguous() for each in tensors)


@operator
def minibatch_stddev(x: Tensor, group_size: int, num_channels: int) -> Tensor:
    """x: [B, C, ...] -> [B / group_size, num_channels]"""
    (rows,) = _in_blocks(num_channels, x)
    return _go_over_groups(rows, rows, rows, rows, group_size, num_channels, VALUE.value)


@operator
def minibatch_stddev_backward(grad_value: Tensor, x: Tensor, group_size: int, num_channels: int) -> Tensor:
    """grad_value: [B / group_size, num_channels]; x: [B, C, ...] -> [B, C, ...]"""
    (rows,) = _in_blocks(num_channels, x)
    grad_x = torch.empty_like(rows)
    _go_over_groups(rows, rows, grad_value.contiguous(), grad_x, group_size, num_channels, BACKWARD.value)
    return in_layout_of(x, grad_x)


@operator
def minibatch_stddev_double_backward(
    grad_grad_x: Tensor, grad_value: Tensor, x: Tensor, group_size: int, num_channels: int
) -> tuple[Tensor, Tensor]:
    """grad_grad_x, x: [B, C, ...]; grad_value: [B / group_size, num_channels] -> as grad_value; [B, C, ...]"""
    rows, along = _in_blocks(num_channels, x, grad_grad_x)
    grad_x = torch.empty_like(rows)
    grad_grad_value = _go_over_groups(
        rows, along, grad_value.contiguous(), grad_x, group_size, num_channels, DOUBLE_BACKWARD.value
    )
    return grad_grad_value, in_layout_of(x, grad_x)
