"""kernel_matvec: kernel matrices times vectors, without the matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import _backend
from ..reference import kernel_matvec as reference
from . import _progress, _schemas
from ._autograd import differentiable
from ._mixtures import allows_tf32, as_tensors, constant, of_products, shapes_of
from .kernel_sums import _KERNEL_FUNCTION, _WORK_PER_CALL

# Which of k, dk/ds, d2k/ds2, dk/dt, d2k/dsdt, d2k/dt2 a product is with (KernelTerm in csrc/core/kernel_matvec.h), and
# what each becomes when it is differentiated by s, the squared distance, and by t, the kernel's parameter.
_K, _BY_S, _BY_T = 0, {0: 1, 1: 2, 3: 4}, {0: 3, 1: 4, 3: 5}


def _fake(x: Tensor, y: Tensor, v: Tensor, *settings: Any) -> Tensor:
    begin, end = settings[-3:-1]
    rows = (x.shape[-2] if end < 0 else end) - begin
    return v.new_empty((*x.shape[:-2], rows, v.shape[-1]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.settings = inputs[5:]
    ctx.save_for_backward(*inputs[:5])


def _derived(terms: dict[int, int], term: int) -> int:
    if term not in terms:
        raise NotImplementedError("wgan_kernels: third derivatives of kernel_matvec are not supported")
    return terms[term]


def _grad_points(points: Tensor, others: Tensor, by_points: Tensor, by_others: Tensor, product: Any) -> Tensor:
    """sum_jp by_points_ip k'(s_ij) by_others_jp 2 (points_i - others_j), from products with the matrix k'."""
    # Differences do not change under a shift, and far from the origin they drown in the mean.
    origin = others.mean(-2, keepdim=True).detach().to(by_others.dtype)
    points, others = points.to(origin.dtype) - origin, others.to(origin.dtype) - origin
    P, D = by_others.shape[-1], others.shape[-1]
    columns = (by_others[..., :, None] * others[..., None, :]).reshape(*others.shape[:-1], P * D)
    slopes = product(torch.cat([by_others, columns], -1))
    moments = slopes[..., P:].unflatten(-1, (P, D))
    along = (by_points * slopes[..., :P]).sum(-1, keepdim=True)
    return 2 * (points * along - (by_points[..., None] * moments).sum(-2))


def _grad_points_of_products(others: Tensor, by_points: Tensor, by_others: Tensor, product: Any) -> Tensor:
    """sum_jp by_points_ip k'(s_ij) by_others_jp others_j, for functions of inner products s."""
    P, D = by_others.shape[-1], others.shape[-1]
    columns = (by_others[..., :, None] * others.to(by_others.dtype)[..., None, :]).reshape(*others.shape[:-1], P * D)
    return (by_points[..., None] * product(columns).unflatten(-1, (P, D))).sum(-2)


def _backward(ctx: Any, matvec: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y, v, weights, params = ctx.saved_tensors
    kinds, shapes, allow_tf32, term, begin, end, diagonal = ctx.settings
    needs_x, needs_y, needs_v, needs_weights, needs_params = ctx.needs_input_grad[:5]
    rows = x.shape[-2]
    if (begin, end) not in ((0, -1), (0, rows)):
        grad = pad(grad, (0, 0, begin, rows - (rows if end < 0 else end)))

    def product(a: Tensor, b: Tensor, columns: Tensor, kind: int, each: Tensor = weights) -> Tensor:
        return matvec(a, b, columns, each, params, kinds, shapes, allow_tf32, kind, 0, -1, diagonal)

    def by_points(a: Tensor, b: Tensor, by_a: Tensor, by_b: Tensor) -> Tensor:
        slope, total = _derived(_BY_S, term), None
        for grad_points, share in (
            (lambda run: _grad_points(a, b, by_a, by_b, run), [not each for each in of_products(kinds)]),
            (lambda run: _grad_points_of_products(b, by_a, by_b, run), of_products(kinds)),
        ):
            if any(share):
                some = weights if all(share) else weights * constant((tuple(map(float, share)),), weights.device)[0]
                part = grad_points(lambda columns, some=some: product(a, b, columns, slope, some))
                total = part if total is None else total + part
        return torch.zeros_like(a) if total is None else total.to(a.dtype)

    grads: list[Tensor | None] = [None] * 5
    if needs_x:
        grads[0] = by_points(x, y, grad, v)
    if needs_y:
        grads[1] = by_points(y, x, v, grad)
    if needs_v:
        grads[2] = product(y, x, grad, term)

    def by_component(kind: int) -> Tensor:
        """<grad, K_c v> of each component alone."""
        one, each = torch.ones_like(weights[:1]).detach(), []
        for c in range(len(kinds)):
            alone = matvec(
                x, y, v, one, params[c : c + 1], kinds[c : c + 1], shapes[c : c + 1], allow_tf32, kind, 0, -1, diagonal
            )
            each.append((alone * grad).sum(dtype=torch.float64))
        return torch.stack(each)

    if needs_weights:
        grads[3] = by_component(term)
    if needs_params:
        by_params = by_component(_derived(_BY_T, term)) * weights
        grads[4] = pad(by_params[:, None], (0, params.shape[1] - 1))
    return *grads, *[None] * 7


_operator = torch.ops.wgan_kernels.kernel_matvec.default


def _by_ranges(*args: Any) -> Tensor:
    """The operator as eager callers run it: a large one in several calls, between which Python hears an interrupt."""
    x, y, v, (begin, end, diagonal) = args[0], args[1], args[2], args[-3:]
    end = x.shape[-2] if end < 0 else end
    problems = x.shape[0] if x.dim() == 3 else 1
    per_pair = x.shape[-1] + v.shape[-1] + _KERNEL_FUNCTION * args[4].shape[0]
    work = problems * (end - begin) * y.shape[-2] * per_pair
    calls = min(int(work / _WORK_PER_CALL) + 1, max(end - begin, 1))
    if calls == 1 or not x.is_cpu:
        return _operator(*args)
    cuts = [begin + (end - begin) * call // calls for call in range(calls + 1)]
    parts, columns = [], problems * y.shape[-2]
    with _progress.sweep("", (end - begin) * columns) as report:
        for first, last in zip(cuts, cuts[1:]):
            parts.append(_operator(*args[:-3], first, last, diagonal))
            report((last - first) * columns)
    return torch.cat(parts, -2)


def register(back_end: str = "", run: Any = None) -> Callable[..., Any]:
    """Gives the operator of a back end ('' or '_triton') its fake kernel and derivative, which stays on that back end;
    returns how to call it. run: what an eager caller runs in place of the operator itself."""

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, matvec, grad)

    torch.library.register_fake(f"wgan_kernels::kernel_matvec{back_end}", _fake, lib=_schemas.LIBRARY)
    matvec = differentiable(f"kernel_matvec{back_end}", _setup_context, backward, run, listened=True)
    return matvec


_kernel_matvec = register(run=_by_ranges)


def _serving(x: Tensor, components: int) -> Any:
    """The operator of the back end that serves the call; None for the reference."""
    if _backend.is_native(x, "kernel_matvec", components):
        return _kernel_matvec
    if _backend.is_triton(x):
        from . import _triton_operators

        return _triton_operators.kernel_matvec
    return None


def _may_skip_pairs(x: Tensor, y: Tensor, v: Tensor, rows: int, diagonal: bool) -> bool:
    """Not where several vectors would need room for the products of each with y; nor where a sum, also of a derivative,
    would be one number, which torch has its threads add up in parts, so that the bits would depend on their number."""
    problems = x.shape[0] if x.dim() == 3 else 1
    return diagonal and v.shape[-1] == 1 and x.shape[-1] > 0 and problems * min(rows, y.shape[-2]) > 1


def _without_pairs(x: Tensor, y: Tensor, v: Tensor, params: Any, weights: Any) -> Tensor:
    """sum_c weights_c sum_j (x_i . y_j + params_c) v_j as (w x_i, o) . sum_j v_j (y_j, 1), in float64."""
    x, y, v = x.double(), y.double(), v.double()
    offsets = params[:, 0] if isinstance(params, Tensor) else params
    w, o = sum(weights), sum(weight * offset for weight, offset in zip(weights, offsets, strict=True))
    # The offset is one more feature: by itself it would be a sum to one number.
    points = torch.cat([w * x, o * x.new_ones((*x.shape[:-1], 1))], -1)
    return (points * torch.cat([v * y, v], -1).sum(-2, keepdim=True)).sum(-1, keepdim=True)


def _split(values: Any, chosen: list[bool]) -> list[Any]:
    """The chosen ones, and the others."""
    parts = [[value for value, is_one in zip(values, chosen, strict=True) if is_one is side] for side in (True, False)]
    return [torch.stack(part) if part and isinstance(values, Tensor) else part for part in parts]


def kernel_matvec(
    x: Tensor,
    y: Tensor,
    v: Tensor,
    kinds: Sequence[str],
    params: Tensor | tuple[float, ...],
    weights: Tensor | tuple[float, ...] | None = None,
    *,
    shapes: Sequence[float] | None = None,
    diagonal: bool = True,
    begin: int = 0,
    end: int = -1,
) -> Tensor:
    """Kernel matrices times vectors: out_ip = sum_j K_ij v_jp with K_ij = sum_c weights_c k_c(x_i, y_j).

    Args:
        x: (N, D), or (B, N, D) for B problems at once, float64, float32, bfloat16 or float16.
        y: (M, D) or (B, M, D) of the same dtype and device.
        v: (M, P) or (B, M, P): weights of points, signs of a permutation, members of subsets, one vector a column.
        kinds, params, shapes: as for kernel_sums.
        weights: C numbers, or (C,) float64; None takes 1 for each component.
        diagonal: count the pairs (i, i); False is for y = x.
        begin, end: the rows of x to compute; end -1 means to the last.

    Returns:
        (end - begin, P) or (B, end - begin, P), float64 for float64 points, else float32.

    Differentiable twice by x, y, v, weights and params. Sums run in float64 in a fixed order: the same input gives the
    same bits for any number of threads. With one vector and the diagonal, polynomials of degree 1 take no pairs: time
    and memory grow with the points, of which there are then copies in float64.
    """
    weights = (1.0,) * len(kinds) if weights is None else weights
    params, weights = (each.to(x.device) if isinstance(each, Tensor) else each for each in (params, weights))
    shapes = shapes_of(kinds, shapes)
    v = v.to(torch.promote_types(x.dtype, torch.float32))
    last = x.shape[-2] if end < 0 else end
    is_linear = [(kind, shape) == ("polynomial", 1) for kind, shape in zip(kinds, shapes)]
    if any(is_linear) and not (last <= x.shape[-2] and _may_skip_pairs(x, y, v, last - begin, diagonal)):
        is_linear = [False] * len(kinds)
    run, linear_part = _serving(x, len(kinds) - sum(is_linear)), None
    if run is not None and any(is_linear):
        linear, others = zip(*(_split(each, is_linear) for each in (kinds, shapes, params, weights)))
        # Widened for both parts, so that gradients by half-width points are added up before they are rounded.
        x, y = x.to(v.dtype), y.to(v.dtype)
        linear_part = _without_pairs(x[..., begin:last, :], y, v, *linear[2:])
        if all(is_linear):
            return linear_part.to(v.dtype)
        kinds, shapes, params, weights = others
    of_components = weights if isinstance(weights, Tensor) else (tuple(weights),)
    codes, params, weights = as_tensors(kinds, params, of_components, x.device)
    weights = weights if isinstance(of_components, Tensor) else weights[0]
    if run is None:
        return reference.kernel_matvec(x, y, v, weights, params, kinds, shapes, begin, end, diagonal)
    out = run(x, y, v, weights, params, codes, shapes, allows_tf32(x), _K, begin, end, diagonal)
    return out if linear_part is None else (out + linear_part).to(v.dtype)
