"""kernel_sums: sums of kernel functions over the pairs of two sets of points, with two derivatives as operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backend
from ..reference import kernel_sums as reference
from . import _progress, _schemas
from ._autograd import differentiable, third_derivative
from ._mixtures import allows_tf32, as_tensors, shapes_of

NEEDS_X, NEEDS_Y, NEEDS_PARAMS = 1, 2, 4
# Pairs times features (and what a kernel function takes for one more) in one call of an operator: about a second
# on one core, between which Python can hear an interrupt.
_WORK_PER_CALL = 4e10
_KERNEL_FUNCTION = 8  # features that take as long as one component of the kernel
_ONE_CALL = 1 << 15  # numbers in x and y that are never too many for one call
_ROWS = 96
_PASSES = {0: "", 1: "backward", 4: "double backward"}  # by where an operator takes x


def _empty_unless(needed: int, like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return like.new_empty(shape if needed else (0,), dtype=dtype)


def _fake_gradients(x: Tensor, y: Tensor, params: Tensor, needs: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (
        _empty_unless(needs & NEEDS_X, x, x.shape, dtype),
        _empty_unless(needs & NEEDS_Y, y, y.shape, dtype),
        _empty_unless(needs & NEEDS_PARAMS, params, params.shape, params.dtype),
    )


def _fake(x: Tensor, y: Tensor, weights: Tensor, params: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    wide, problems, needs = torch.promote_types(x.dtype, torch.float32), x.shape[:-2], settings[-1]
    grad_x, grad_y, _ = _fake_gradients(x, y, params, needs & ~NEEDS_PARAMS, wide)
    grad_params = _empty_unless(needs & NEEDS_PARAMS, params, (*problems, *params.shape), params.dtype)
    sums = x.new_empty((*problems, 3, params.shape[0]), dtype=torch.float64)
    return x.new_empty(problems, dtype=wide), sums, grad_x, grad_y, grad_params


def _fake_backward(grad_sums: Tensor, x: Tensor, y: Tensor, params: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    return _fake_gradients(x, y, params, settings[-1], x.dtype)


def _fake_double_backward(*args: Any) -> tuple[Tensor, ...]:
    *_, grad_sums, x, y, params, _, _, _, _, _, _, needs = args
    grad_grad_sums = x.new_empty((*x.shape[:-2], 3, params.shape[0]), dtype=torch.float64)
    return grad_grad_sums, *_fake_gradients(x, y, params, needs, x.dtype)


def needs_of(needs_x: bool, needs_y: bool, needs_params: bool) -> int:
    return NEEDS_X * needs_x + NEEDS_Y * needs_y + NEEDS_PARAMS * needs_params


def only_needed(grads: Sequence[Tensor], needs: int) -> list[Tensor | None]:
    return [grad if needs & bit else None for grad, bit in zip(grads, (NEEDS_X, NEEDS_Y, NEEDS_PARAMS))]


def scaled(grads: Sequence[Tensor | None], grad_value: Tensor, x: Tensor) -> list[Tensor | None]:
    """The gradients that the forward sweep left behind, times that of its value."""
    if x.dim() == 2:
        scaled = [None if grad is None else grad * grad_value for grad in grads]
    else:
        scaled = [None if grad is None else grad * grad_value[:, None, None] for grad in grads]
        scaled[2] = None if scaled[2] is None else scaled[2].sum(0)
    if x.dtype != grad_value.dtype:
        scaled[:2] = [None if grad is None else grad.to(x.dtype) for grad in scaled[:2]]
    return scaled


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y, weights, params, *ctx.settings = inputs
    _, sums, *grads = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*grads)
    ctx.save_for_backward(x, y, weights, params, sums if weights.requires_grad else None, *grads)


def _backward(
    ctx: Any, sums_backward: Any, grad_value: Tensor | None, grad_sums: Tensor | None, *_: Any
) -> tuple[Tensor | None, ...]:
    if grad_value is None and grad_sums is None:
        return (None,) * 11
    x, y, weights, params, sums, *grads = ctx.saved_tensors
    needs_x, needs_y, needs_weights, needs_params = ctx.needs_input_grad[:4]
    needs, have = needs_of(needs_x, needs_y, needs_params), ctx.settings[-1]
    if grad_sums is None and needs & ~have == 0 and not torch.is_grad_enabled():
        # With grad mode on, the gradients left behind would hide how they depend on x and y, and a second derivative
        # through them would be silently wrong.
        results = scaled(only_needed(grads, needs), grad_value, x)
    else:
        total = grad_sums if grad_value is None else weights * grad_value[..., None, None].double()
        if grad_value is not None and grad_sums is not None:
            total = total + grad_sums
        results = only_needed(sums_backward(total, x, y, params, *ctx.settings[:-1], needs), needs)
    grad_weights = None
    if needs_weights and grad_value is not None:
        grad_weights = (grad_value[..., None, None].double() * sums).sum_to_size(weights.shape)
    grad_x, grad_y, grad_params = results
    return grad_x, grad_y, grad_weights, grad_params, *[None] * 7


def _setup_backward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad_sums, x, y, params, *ctx.settings = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(grad_sums, x, y, params)


def _double_backward(ctx: Any, sums_double_backward: Any, *grad_grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if all([grad is None for grad in grad_grads]):
        return (None,) * 11
    grad_sums, x, y, params = ctx.saved_tensors
    _, needs_x, needs_y, needs_params = ctx.needs_input_grad[:4]
    needs = needs_of(needs_x, needs_y, needs_params)
    # What was not asked for came out empty, and so is its gradient.
    along = [None if grad is None or grad.shape != of.shape else grad for grad, of in zip(grad_grads, (x, y, params))]
    grad_grad_sums, *grads = sums_double_backward(*along, grad_sums, x, y, params, *ctx.settings[:-1], needs)
    return grad_grad_sums.sum_to_size(grad_sums.shape), *only_needed(grads, needs), *[None] * 7


def _row_ranges(rows: int, begin: int, end: int, calls: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole tiles that share the pairs of rows [begin, end) among about `calls` calls."""
    # Row i owns the pairs with all later rows, so a share of the pairs is an area under a falling line.
    left, last = (rows - begin) ** 2, (rows - end) ** 2
    for call in range(1, calls):
        stop = rows - (left - (left - last) * call / calls) ** 0.5
        stop = min(end, -int(-stop // _ROWS) * _ROWS)
        if begin < stop:
            yield begin, stop
        begin = max(begin, stop)
    yield begin, end


def _pairs(rows: int, begin: int, end: int) -> float:
    """How many pairs rows [begin, end) own."""
    return ((rows - begin) * (rows - begin - 1) - (rows - end) * (rows - end - 1)) / 2


def _by_ranges(operator: Callable[..., tuple[Tensor, ...]], x_at: int, tensors: int) -> Callable[..., Any]:
    """The operator as eager callers run it: a large one in several calls, between which Python hears an interrupt.

    x_at: which argument x is; y comes next. tensors: how many arguments are tensors or None.
    """

    def run(*args: Any) -> tuple[Tensor, ...]:
        x, y = args[x_at], args[x_at + 1]
        components = args[tensors - 1].shape[0]
        if (x.numel() + y.numel()) * components < _ONE_CALL or not x.is_cpu:
            return operator(*args)
        begin, end, diagonal, needs = args[-4:]
        rows = x.shape[-2] + y.shape[-2]
        end = rows if end < 0 else end
        work = _pairs(rows, begin, end) * (x.shape[-1] + _KERNEL_FUNCTION * components)
        work *= x.shape[0] if x.dim() == 3 else 1
        if work < _WORK_PER_CALL:
            return operator(*args)
        if x.dtype in (torch.bfloat16, torch.float16):  # parts are rounded once, after they are added up
            points = [t.float() if isinstance(t, Tensor) and t.dtype == x.dtype else t for t in args[:tensors]]
            results = run(*points, *args[tensors:])
            return results if x_at == 0 else tuple(t.to(x.dtype) if t.dtype == torch.float32 else t for t in results)
        calls, total = int(work / _WORK_PER_CALL) + 1, None
        with _progress.sweep(_PASSES[x_at], _pairs(rows, begin, end)) as report:
            for first, last in _row_ranges(rows, begin, end, calls):
                part = operator(*args[:-4], first, last, diagonal, needs)
                # Of thousands of parts, which are rounded once, when they are added up.
                total = [t.double() for t in part] if total is None else [w.add_(t) for w, t in zip(total, part)]
                report(_pairs(rows, first, last))
        if x_at == 0:  # the value is a small difference of large sums: not to be added up in float32
            _, sums, *grads = total
            total = (args[2] * sums).sum((-2, -1)), sums, *grads
        return tuple(whole.to(like.dtype) for whole, like in zip(total, part))

    return run


def register(back_end: str = "", by_ranges: Any = None) -> tuple[Callable[..., Any], ...]:
    """Gives the operators of a back end ('' or '_triton') their fake kernels and derivatives, which stay on that back
    end; returns what calls the first, what runs it outside of graphs, and what calls the second.

    by_ranges: (operator, x_at, tensors) -> what an eager caller runs in place of the operator itself.
    """
    names = [f"{name}{back_end}" for name in ("kernel_sums", "kernel_sums_backward", "kernel_sums_double_backward")]
    for name, kernel in zip(names, (_fake, _fake_backward, _fake_double_backward)):
        torch.library.register_fake(f"wgan_kernels::{name}", kernel, lib=_schemas.LIBRARY)
    runs = [getattr(torch.ops.wgan_kernels, name).default for name in names]
    if by_ranges is not None:
        runs = [by_ranges(run, x_at, tensors) for run, x_at, tensors in zip(runs, (0, 1, 4), (4, 4, 7))]

    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        return _backward(ctx, sums_backward, *grads)

    def double_backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        return _double_backward(ctx, sums_double_backward, *grads)

    sums_double_backward = differentiable(
        names[2], lambda ctx, inputs, output: None, third_derivative("kernel_sums"), runs[2], listened=True
    )
    sums_backward = differentiable(names[1], _setup_backward_context, double_backward, runs[1], listened=True)
    return differentiable(names[0], _setup_context, backward, runs[0], listened=True), runs[0], sums_backward


_kernel_sums, run_kernel_sums, kernel_sums_backward = register(by_ranges=_by_ranges)


def kernel_sums(
    x: Tensor,
    y: Tensor,
    kinds: Sequence[str],
    params: Tensor | tuple[float, ...],
    weights: Tensor | tuple[Any, Any, Any],
    *,
    shapes: Sequence[float] | None = None,
    diagonal: bool = False,
    begin: int = 0,
    end: int = -1,
) -> tuple[Tensor, Tensor]:
    """Sums of kernel functions k_c over the pairs of x, of y, and of x with y, and their weighted total.

    sums[:, c] = sum_{i!=j} k_c(x_i, x_j), sum_{i!=j} k_c(y_i, y_j), sum_{i,j} k_c(x_i, y_j)
    value = sum of weights * sums

    Args:
        x: (N, D), or (B, N, D) for B problems at once, float64, float32, bfloat16 or float16.
        y: (M, D) or (B, M, D) of the same dtype and device.
        kinds: the kind of each of the C components, a name in the reference's KERNEL_FUNCTIONS or PRODUCT_FUNCTIONS.
        params: C numbers, or (C, Q) float64: the parameters of each component.
        weights: of the blocks xx, yy, xy: three numbers for all components alike or three tuples of C numbers, or
            (3, C) or (B, 3, C) float64.
        shapes: C numbers, of which the kinds that have a fixed number, such as a degree, take theirs.
        diagonal: count the pairs of a point with itself.
        begin, end: the rows of the stacked points [x; y] whose pairs to sum; row i owns the pairs (i, j) with j > i,
            and the results of ranges that make up all rows add up to the whole. end -1 means to the last.

    Returns:
        value, () or (B,), float64 for float64 input, else float32; sums, (3, C) or (B, 3, C) float64.

    Differentiable twice by x, y, weights and params; a third derivative raises. Distances are computed from centred
    points, in float32 where that leaves them enough digits and in float64 otherwise; sums run in float64 in a fixed
    order: the same input gives the same bits for any number of threads.
    """
    codes, params, weights = as_tensors(kinds, params, weights, x.device)
    shapes = shapes_of(kinds, shapes)
    if _backend.is_native(x, "kernel_sums", len(kinds)):
        run = _kernel_sums
    elif _backend.is_triton(x):
        from . import _triton_operators

        run = _triton_operators.kernel_sums
    else:
        return reference.kernel_sums(x, y, weights, params, kinds, shapes, begin, end, diagonal)
    needs = needs_of(x.requires_grad, y.requires_grad, params.requires_grad) if torch.is_grad_enabled() else 0
    return run(x, y, weights, params, codes, shapes, allows_tf32(x), begin, end, diagonal, needs)[:2]
