"""rmsprop_clip_: many parameters in one launch, in place.

As in weight_clip.py a launch reads addresses from a table in device memory, which cannot be made inside a CUDA graph: a
graph that is captured with addresses not met before gets one launch for each parameter. Not tuned: a step that is timed
has been made.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import device_of, float64_of, is_dense, words
from .weight_clip import _DTYPES, _rounded, _table

BLOCK = 1024
_WORDS = [f"{name}_{half}" for name in ("lr", "alpha", "rest", "eps", "decay", "momentum", "low", "high")
          for half in ("high", "low")]  # fmt: skip


@triton.jit
def _root_and_quotient(spread, eps, numerator):
    """numerator / (sqrt(spread) + eps), rounded as IEEE wants, which Triton does for float32 where it is told to."""
    if spread.dtype == tl.float64:
        return numerator / (tl.sqrt(spread) + eps)
    else:
        return tl.div_rn(numerator, tl.sqrt_rn(spread) + eps)


@triton.jit
def _count(stats, w, low, high, inside):
    """The bits of magnitudes, a NaN's too, are ordered as the numbers are; integers may be added in any order.
    A block counts in 32 bits: in 64, registers would spill."""
    at_bound = tl.sum((inside & ((w <= low) | (w >= high))).to(tl.int32), 0)
    bits = tl.abs(w).to(tl.float64).to(tl.int64, bitcast=True)
    tl.atomic_add(stats, at_bound.to(tl.int64))
    tl.atomic_max(stats + 1, tl.max(tl.where(inside, bits, 0), 0))


@triton.jit
def _step(
    w_at, g_at, v_at, b_at, a_at, inside, beside, stats, lr, alpha, rest, eps, decay, momentum, low, high,
    DTYPE: tl.constexpr, MOVES: tl.constexpr, CENTERED: tl.constexpr, MOMENTUM: tl.constexpr, DECAYS: tl.constexpr,
    MOSTLY_NEW: tl.constexpr, MAXIMIZE: tl.constexpr, BESIDE: tl.constexpr, COUNTED: tl.constexpr,
):  # fmt: skip
    """One block of a parameter; *_at: pointers to its elements. beside: [3] float64, lr, the factor of gradients, and
    what is not 0 where nothing is to be done."""
    wide: tl.constexpr = tl.float64 if DTYPE == tl.float64 else tl.float32
    if BESIDE:
        lr = tl.load(beside)
        inside = inside & (tl.load(beside + 2) + tl.zeros(inside.shape, tl.float64) == 0)
    w = tl.load(w_at, mask=inside, other=0).to(wide)
    if MOVES:
        g = tl.load(g_at, mask=inside, other=0).to(wide)
        if BESIDE:
            g = g * tl.load(beside + 1).to(wide)
        if MAXIMIZE:
            g = -g
        if DECAYS:
            g = tl.fma(w, decay.to(wide) + tl.zeros_like(w), g)
        v = tl.load(v_at, mask=inside, other=0).to(wide)
        v = tl.fma(g * rest.to(wide), g, v * alpha.to(wide))
        tl.store(v_at, v.to(DTYPE), mask=inside)
        spread = v
        if CENTERED:
            a = tl.load(a_at, mask=inside, other=0).to(wide)
            if MOSTLY_NEW:
                a = g - (g - a) * alpha.to(wide)
            else:
                a = tl.fma(rest.to(wide) + tl.zeros_like(a), g - a, a)
            tl.store(a_at, a.to(DTYPE), mask=inside)
            spread = tl.fma(-a, a, v)
            spread = tl.where(spread < 0, 0.0, spread)  # below zero by rounding alone
        lr = -lr.to(wide)
        if MOMENTUM:
            b = tl.load(b_at, mask=inside, other=0).to(wide)
            b = b * momentum.to(wide) + _root_and_quotient(spread, eps.to(wide), g)
            tl.store(b_at, b.to(DTYPE), mask=inside)
            w = tl.fma(b, lr + tl.zeros_like(w), w)
        else:
            w = w + _root_and_quotient(spread, eps.to(wide), g * lr)
    # NaN compares with nothing and stays what it is.
    low, high = low.to(wide), high.to(wide)
    w = tl.where(w < low, low, w)
    w = tl.where(w > high, high, w).to(DTYPE)
    tl.store(w_at, w, mask=inside)
    if COUNTED:
        _count(stats, w.to(wide), low, high, inside)


@triton.jit(do_not_specialize=["K", *_WORDS])
def rmsprop_clip_kernel(
    table, K, beside, stats, lr_high, lr_low, alpha_high, alpha_low, rest_high, rest_low, eps_high, eps_low,
    decay_high, decay_low, momentum_high, momentum_low, low_high, low_low, high_high, high_low,
    DTYPE: tl.constexpr, MOVES: tl.constexpr, CENTERED: tl.constexpr, MOMENTUM: tl.constexpr, DECAYS: tl.constexpr,
    MOSTLY_NEW: tl.constexpr, MAXIMIZE: tl.constexpr, BESIDE: tl.constexpr, COUNTED: tl.constexpr,
    TENSORS: tl.constexpr, ALIGNMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """table: [7, K] int64: the addresses of param, grad, square_avg, momentum_buffer and grad_avg of each, its size,
    and its first block among those of all."""
    block = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, TENSORS)
    tensor = tl.sum((tl.load(table + 6 * K + k, mask=k < K, other=0x7FFFFFFF) <= block).to(tl.int32), 0) - 1
    at = (block - tl.load(table + 6 * K + tensor)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.load(table + 5 * K + tensor)
    w = tl.multiple_of(tl.load(table + tensor).to(tl.pointer_type(DTYPE)), ALIGNMENT)
    g = tl.multiple_of(tl.load(table + K + tensor).to(tl.pointer_type(DTYPE)), ALIGNMENT)
    v = tl.multiple_of(tl.load(table + 2 * K + tensor).to(tl.pointer_type(DTYPE)), ALIGNMENT)
    b = tl.multiple_of(tl.load(table + 3 * K + tensor).to(tl.pointer_type(DTYPE)), ALIGNMENT)
    a = tl.multiple_of(tl.load(table + 4 * K + tensor).to(tl.pointer_type(DTYPE)), ALIGNMENT)
    _step(
        w + at, g + at, v + at, b + at, a + at, inside, beside, stats, float64_of(lr_high, lr_low),
        float64_of(alpha_high, alpha_low), float64_of(rest_high, rest_low), float64_of(eps_high, eps_low),
        float64_of(decay_high, decay_low), float64_of(momentum_high, momentum_low), float64_of(low_high, low_low),
        float64_of(high_high, high_low), DTYPE, MOVES, CENTERED, MOMENTUM, DECAYS, MOSTLY_NEW, MAXIMIZE, BESIDE,
        COUNTED,
    )  # fmt: skip


@triton.jit(do_not_specialize=["size", *_WORDS])
def rmsprop_clip_one_kernel(
    w, g, v, b, a, size, beside, stats, lr_high, lr_low, alpha_high, alpha_low, rest_high, rest_low, eps_high, eps_low,
    decay_high, decay_low, momentum_high, momentum_low, low_high, low_low, high_high, high_low,
    DTYPE: tl.constexpr, MOVES: tl.constexpr, CENTERED: tl.constexpr, MOMENTUM: tl.constexpr, DECAYS: tl.constexpr,
    MOSTLY_NEW: tl.constexpr, MAXIMIZE: tl.constexpr, BESIDE: tl.constexpr, COUNTED: tl.constexpr,
    ALIGNMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One parameter, without a table."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    _step(
        w + at, g + at, v + at, b + at, a + at, at < size, beside, stats, float64_of(lr_high, lr_low),
        float64_of(alpha_high, alpha_low), float64_of(rest_high, rest_low), float64_of(eps_high, eps_low),
        float64_of(decay_high, decay_low), float64_of(momentum_high, momentum_low), float64_of(low_high, low_low),
        float64_of(high_high, high_low), DTYPE, MOVES, CENTERED, MOMENTUM, DECAYS, MOSTLY_NEW, MAXIMIZE, BESIDE,
        COUNTED,
    )  # fmt: skip


def _beside(device: torch.device, lr: Any, scale: Tensor | None, found_inf: Tensor | None) -> Tensor | None:
    """[3] float64 of the numbers that are on the device, with those that are not; None where none is."""
    if not any(isinstance(number, Tensor) for number in (lr, scale, found_inf)):
        return None
    one = torch.ones((), dtype=torch.float64, device=device)
    numbers = [
        lr.double().reshape(()) if isinstance(lr, Tensor) else one * lr,
        one if scale is None else scale.double().reciprocal().float().double().reshape(()),  # as GradScaler unscales
        one * 0 if found_inf is None else found_inf.double().reshape(()),
    ]
    return torch.stack(numbers)


def _launch(lists: Sequence[Sequence[Tensor]], numbers: Sequence[float], **settings: Any) -> None:
    """lists: params, grads, square_avgs, momentum_buffers, grad_avgs, with the parameters in place of those that are
    not used; dense, of one device, dtype and alignment."""
    params = lists[0]
    device, dtype = params[0].device, params[0].dtype
    *numbers, low, high = numbers
    bounds = [_rounded(dtype, bound, math.copysign(1.0, bound)) for bound in (low, high)]
    passed = [word for number in (*numbers, *bounds) for word in words(number)]
    beside, stats = settings.pop("beside"), settings.pop("stats")
    settings.update(DTYPE=_DTYPES[dtype], BESIDE=beside is not None, COUNTED=stats is not None, BLOCK=BLOCK)
    memory = tuple([(*[each.data_ptr() for each in tensors], tensors[0].numel()) for tensors in zip(*lists)])
    found = _table(device, memory, device.type == "cuda" and torch.cuda.is_current_stream_capturing(), BLOCK)
    if found is None:
        for tensors in zip(*lists):
            size = tensors[0].numel()
            pointers = [params[0] if pointer is None else pointer for pointer in (beside, stats)]
            rmsprop_clip_one_kernel[(triton.cdiv(size, BLOCK),)](*tensors, size, *pointers, *passed, **settings)
        return
    table, blocks = found
    pointers = [table if pointer is None else pointer for pointer in (beside, stats)]
    rmsprop_clip_kernel[(blocks,)](
        table, len(memory), *pointers, *passed, TENSORS=triton.next_power_of_2(len(memory)), **settings
    )


# An operator that torch.compile does not look into: the table holds addresses, which a traced tensor does not have.
@functools.partial(
    torch.library.custom_op,
    "wgan_kernels::rmsprop_clip__triton",
    mutates_args=("params", "square_avgs", "momentum_buffers", "grad_avgs", "steps", "stats"),
)
def rmsprop_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    grad_avgs: Sequence[Tensor],
    steps: Sequence[Tensor],
    stats: Tensor | None,
    lr_tensor: Tensor | None,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    maximize: bool,
    low: float,
    high: float,
) -> None:
    """params: any shapes and dtypes, one device."""
    if not params:
        return
    settings = {
        "MOVES": len(grads) > 0,
        "CENTERED": len(grad_avgs) > 0,
        "MOMENTUM": len(momentum_buffers) > 0,
        "DECAYS": weight_decay != 0,
        "MOSTLY_NEW": 1 - alpha >= 0.5,
        "MAXIMIZE": maximize,
        "stats": stats,
    }
    given = [params, *(each or params for each in (grads, square_avgs, momentum_buffers, grad_avgs))]
    groups: dict[tuple[torch.dtype, int], list[list[Tensor]]] = {}
    copies: list[tuple[Tensor, Tensor]] = []
    for tensors in zip(*given):
        if tensors[0].numel() > 0:
            side = _side_by_side(tensors, copies)
            aligned = all(each.data_ptr() % 16 == 0 for each in side)
            groups.setdefault((side[0].dtype, 16 if aligned else side[0].element_size()), []).append(side)
    with device_of(params[0]):
        beside = _beside(params[0].device, lr if lr_tensor is None else lr_tensor, grad_scale, found_inf)
        for (_, alignment), group in groups.items():
            numbers = (lr, alpha, 1 - alpha, eps, weight_decay, momentum, low, high)
            _launch(list(zip(*group)), numbers, ALIGNMENT=alignment, beside=beside, **settings)
        for tensor, copy in copies:
            tensor.copy_(copy)
        for step in steps:
            step.add_(1 if found_inf is None else (found_inf == 0).to(step))


def _side_by_side(tensors: Sequence[Tensor], copies: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """A parameter, its gradient and its states, in one order of memory; copies of those that are written go to `copies`
    to be brought back."""
    param = tensors[0]
    home = param if is_dense(param) else torch.empty_like(param).copy_(param)
    side = []
    for at, tensor in enumerate(tensors):
        placed = home if tensor is param else tensor
        if tensor is not param and tensor.stride() != home.stride():
            placed = torch.empty_like(home).copy_(tensor)
        if placed is not tensor and at != 1 and (at == 0 or tensor is not param):
            copies.append((tensor, placed))
        side.append(placed)
    return side
