"""kernel_sums and its two derivatives: one sweep over pairs of tiles, and one that adds up what its programs left.

float64 points are swept by differences. Others are swept by matrix products in float32; a program that meets distances
for which those have too few digits says so, and a second launch, in which the others have nothing to do, does its work
by differences.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from ._kernel_functions import DISTANCES, PRODUCTS, mixture
from ._launch import autotuned, device_of, feature_class, matmul_precision, operator, wrap_triton
from ._pair_finish import FINISH_ELEMENTS, FINISH_PARTS, kernel_sums_finish_kernel
from ._pair_sweep import sweep
from ._tiles import BLOCK, FEATURES, PRODUCT_CONFIGS, PROGRAMS, ahead, tuned

_X, _Y, _PARAMS = 1, 2, 4


kernel_sums_kernels = {precision: tuned(configs)(sweep) for precision, configs in PRODUCT_CONFIGS.items()}
kernel_sums_exact_kernel = tuned(ahead(2, 1, 3))(sweep)
# Products of a tangent load nothing ahead: their registers would spill.
kernel_sums_tangent_kernel = autotuned(ahead(1, num_warps=8, num_stages=1))(sweep)
kernel_sums_exact_wide_kernel = tuned(ahead(3, 1, num_warps=8))(sweep)
# Timed where no program has anything to do, they would be tuned for that.
kernel_sums_flagged_kernel = autotuned(ahead(2))(sweep)
# Left to itself ptxas spills some of these to get down to 128 registers, which lets two blocks share a multiprocessor.
kernel_sums_flagged_wide_kernel = autotuned(ahead(3, num_warps=8, maxnreg=255))(sweep)


def _stacked(x: Tensor, y: Tensor) -> Tensor:
    """[x; y] of each problem, dense."""
    return torch.cat([x, y], -2).contiguous()


def _sweep(
    x: Tensor, y: Tensor, along: Tensor | None, weights: Tensor, params: Tensor, along_params: Tensor | None,
    kinds: Sequence[int], shapes: Sequence[float], allow_tf32: bool, begin: int, end: int, diagonal: bool, needs: int,
    dtype: torch.dtype,
) -> tuple[Tensor, ...]:  # fmt: skip
    """value, sums, grad_x, grad_y (of dtype), and grad_params by problem; or the derivatives of all these.

    x: [N, D] or [B, N, D]; y: [.., M, D]; along: [.., N + M, D]; weights: [3, C] or [B, 3, C]; params, along_params:
    [C, Q]
    """
    N, M, D, C = x.shape[-2], y.shape[-2], x.shape[-1], len(kinds)
    problems, Q = x.shape[:-2], params.shape[1]
    B = problems[0] if problems else 1
    end = N + M if end < 0 else end
    points, weights, params = _stacked(x, y), weights.contiguous(), params.contiguous()
    of = mixture(kinds, shapes, params)
    along_thetas = params if along_params is None else along_params[:, 0].contiguous()
    tangent, along = along is not None, points if along is None else along
    tiles = triton.cdiv(N, BLOCK) + triton.cdiv(M, BLOCK)
    S = max(1, min(tiles, PROGRAMS // max(1, B * tiles)))
    programs = B * tiles * S
    gradient = needs & (_X | _Y)
    sums = x.new_empty((programs, 4, C), dtype=torch.float64)
    gradients = x.new_empty((B, S, N + M, D) if gradient else (1,), dtype=torch.float64)
    flags = x.new_empty((programs,), dtype=torch.int32)
    totals = x.new_empty((*problems, 3, C), dtype=torch.float64)
    value = x.new_empty(problems, dtype=torch.promote_types(x.dtype, torch.float32))
    grad_thetas = x.new_empty((B, C) if needs & _PARAMS else (0,), dtype=torch.float64)
    grad_x = x.new_empty(x.shape if needs & _X else (0,), dtype=dtype)
    grad_y = x.new_empty(y.shape if needs & _Y else (0,), dtype=dtype)
    common = {"KINDS": of.kinds, "C": C, "CPAD": triton.next_power_of_2(C), "NEEDS": needs, "TANGENT": tangent,
              "BLOCK": BLOCK}  # fmt: skip
    weight_stride = 3 * C if weights.numel() != 3 * C else 0
    with device_of(x):
        if programs > 0:
            exact = x.dtype == torch.float64 or of.needs_float64
            # Tangents of distances and products at once need more registers in float32 than there are.
            exact = exact or (tangent and of.of == DISTANCES + PRODUCTS)
            # Second derivatives are rare: that they take no TF32 saves a kernel.
            precision = matmul_precision(x, allow_tf32 and not tangent)
            settings = {"OF": of.of, "SELVES": diagonal and bool(of.of & PRODUCTS), "FLAGGED": False,
                        "PRECISION": precision, "FEATURES": FEATURES, **common}  # fmt: skip
            arguments = (points, along, weights, params, along_thetas, of.shapes, sums, gradients, flags, N, M, D,
                         begin, end, S, Q, weight_stride, feature_class(D))  # fmt: skip
            # More registers than four warps have.
            wide = of.of == DISTANCES + PRODUCTS or (tangent and of.of == DISTANCES)
            if exact:
                kernel = kernel_sums_exact_wide_kernel if wide else kernel_sums_exact_kernel
            else:
                kernel = kernel_sums_tangent_kernel if tangent else kernel_sums_kernels[precision]
                wrap_triton(kernel)[(programs,)](*arguments, EXACT=False, **settings)
                kernel = kernel_sums_flagged_wide_kernel if wide else kernel_sums_flagged_kernel
                settings["FLAGGED"] = True
            wrap_triton(kernel)[(programs,)](*arguments, EXACT=True, **settings)
        if B > 0:
            elements = B * (N + M) * D if gradient else 0
            wrap_triton(kernel_sums_finish_kernel)[(B + triton.cdiv(elements, FINISH_ELEMENTS),)](
                sums, gradients, weights, params, along_thetas, of.shapes, value, totals, grad_thetas, grad_x,
                grad_y, B, N, M, D, begin, end, S, Q, weight_stride, DIAGONAL=diagonal, PARTS=FINISH_PARTS,
                ELEMENTS=FINISH_ELEMENTS, **common,
            )  # fmt: skip
    return value, totals, grad_x, grad_y, grad_thetas


def _grad_params(grad_thetas: Tensor, params: Tensor, needs: int, problems: Sequence[int]) -> Tensor:
    """[*problems, C, Q] from [B, C]: only the first parameter of a component is known to the kernels."""
    if not needs & _PARAMS:
        return params.new_empty((0,))
    grads = grad_thetas.reshape(*problems, params.shape[0], 1)
    return torch.nn.functional.pad(grads, (0, params.shape[1] - 1)) if params.shape[1] > 1 else grads


@operator
def kernel_sums(
    x: Tensor, y: Tensor, weights: Tensor, params: Tensor, kinds: Sequence[int], shapes: Sequence[float],
    allow_tf32: bool, begin: int, end: int, diagonal: bool, needs: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As the schema of kernel_sums."""
    settings = (kinds, shapes, allow_tf32, begin, end, diagonal, needs)
    results = _sweep(x, y, None, weights, params, None, *settings, torch.promote_types(x.dtype, torch.float32))
    return *results[:4], _grad_params(results[4], params, needs, x.shape[:-2])


@operator
def kernel_sums_backward(
    grad_sums: Tensor, x: Tensor, y: Tensor, params: Tensor, kinds: Sequence[int], shapes: Sequence[float],
    allow_tf32: bool, begin: int, end: int, diagonal: bool, needs: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As the schema of kernel_sums_backward."""
    settings = (kinds, shapes, allow_tf32, begin, end, diagonal, needs)
    results = _sweep(x, y, None, grad_sums, params, None, *settings, x.dtype)
    return *results[2:4], _grad_params(_over_problems(results[4], needs), params, needs, ())


@operator
def kernel_sums_double_backward(
    grad_grad_x: Tensor | None, grad_grad_y: Tensor | None, grad_grad_params: Tensor | None, grad_sums: Tensor,
    x: Tensor, y: Tensor, params: Tensor, kinds: Sequence[int], shapes: Sequence[float], allow_tf32: bool, begin: int,
    end: int, diagonal: bool, needs: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As the schema of kernel_sums_double_backward."""
    along = [torch.zeros_like(of) if grad is None else grad for grad, of in ((grad_grad_x, x), (grad_grad_y, y))]
    along_params = torch.zeros_like(params) if grad_grad_params is None else grad_grad_params
    settings = (kinds, shapes, allow_tf32, begin, end, diagonal, needs)
    results = _sweep(x, y, _stacked(*along), grad_sums, params, along_params, *settings, x.dtype)
    return *results[1:4], _grad_params(_over_problems(results[4], needs), params, needs, ())


def _over_problems(grad_thetas: Tensor, needs: int) -> Tensor:
    return grad_thetas.sum(0) if needs & _PARAMS else grad_thetas
