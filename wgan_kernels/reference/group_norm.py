"""Layer, group and instance normalisation (Ba et al. 2016; Wu and He 2018; Ulyanov et al. 2016), with two derivatives.

Of each group of n numbers, with r = 1 / sqrt(variance + eps):

    xhat = (x - mean(x)) r,    y = w xhat + b

The derivative of xhat along t is the symmetric S t = r (t - mean(t) - xhat mean(t xhat)). With g the gradient of y:

    grad_x = S(w g),    grad_w = sum(g xhat),    grad_b = sum(g)

With u, p and q the gradients of these three, and a = w g, what is differentiated again is
<u, S a> + <p, g xhat> + <q, g>, hence

    grad_grad_y = w S u + p xhat + q
    grad_w = sum(g S u)
    grad_x = S(p g) - r/n (xhat <a, S u> + <u, xhat> S a + <a, xhat> S u)

where p, q and w are spread over what they multiply, and sums go over that. Autograd differentiates
`group_norm`; the other two are these formulas.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _grouped(x: Tensor, groups: int, layer_dims: int) -> tuple[Tensor, list[int]]:
    """x in float64 with the dimensions of a group, which are named, apart from others."""
    if layer_dims:
        return x.double(), list(range(x.dim() - layer_dims, x.dim()))
    x = x.double().unflatten(1, (groups, x.shape[1] // groups))
    return x, list(range(2, x.dim()))


def _spread(param: Tensor | None, x: Tensor, layer_dims: int, missing: float) -> Tensor:
    """A parameter, in float64, in a shape that multiplies x."""
    if param is None:
        return torch.full((), missing, dtype=torch.float64, device=x.device)
    return param.double() if layer_dims else param.double().view(-1, *[1] * (x.dim() - 2))


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y, and the mean and rstd of each group, (rows, groups), outside the graph, float64 for float64, else float32.

    x: (B, C, ...), or (..., C...) with the last `layer_dims` dimensions as one group. weight, bias: (C,) or (C...).
    """
    wide, dims = _grouped(x, groups, layer_dims)
    mean = wide.mean(dims, keepdim=True)
    centred = wide - mean
    rstd = (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    xhat = (centred * rstd).reshape(x.shape) if layer_dims else (centred * rstd).flatten(1, 2)
    y = xhat * _spread(weight, x, layer_dims, 1) + _spread(bias, x, layer_dims, 0)
    dtype = torch.promote_types(x.dtype, torch.float32)
    statistics = [each.detach().to(dtype).reshape(-1, groups) for each in (mean, rstd)]
    return y.to(x.dtype), *statistics


def _standard(x: Tensor, rstd: Tensor, groups: int, layer_dims: int) -> tuple[Tensor, Tensor, list[int]]:
    """xhat and r, float64, with groups apart, and the dimensions of a group."""
    wide, dims = _grouped(x, groups, layer_dims)
    r = rstd.double().reshape([1 if d in dims else n for d, n in enumerate(wide.shape)])
    return (wide - wide.mean(dims, keepdim=True)) * r, r, dims


def _by_param(each: Tensor, param: Tensor | None, x: Tensor, layer_dims: int, needed: bool) -> Tensor:
    """The sum over all that a parameter multiplies; no elements where it is not needed."""
    if param is None:
        return x.new_empty(0, dtype=torch.promote_types(x.dtype, torch.float32))
    if not needed:
        return param.new_empty(0)
    each = each.reshape(x.shape)
    each = each.reshape(-1, *param.shape).sum(0) if layer_dims else each.sum([d for d in range(x.dim()) if d != 1])
    return each.to(param.dtype)


def group_norm_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, groups: int,
    layer_dims: int, needs_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """grad_x, grad_weight, grad_bias; of the mean, which was rounded, no use is made."""
    xhat, r, dims = _standard(x, rstd, groups, layer_dims)
    g = grad_y.double().reshape(xhat.shape)
    a = (grad_y.double() * _spread(weight, x, layer_dims, 1)).reshape(xhat.shape)
    grad_x = r * (a - a.mean(dims, keepdim=True) - xhat * (a * xhat).mean(dims, keepdim=True))
    sums = [_by_param(t, param, x, layer_dims, needs_params) for t, param in ((g * xhat, weight), (g, bias))]
    return grad_x.reshape(x.shape).to(x.dtype), *sums


def group_norm_double_backward(
    grad_grad_x: Tensor | None, grad_grad_weight: Tensor | None, grad_grad_bias: Tensor | None, grad_y: Tensor,
    x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor, groups: int, layer_dims: int, needs_y: bool,
    needs_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """grad_grad_y, with no elements where it is not needed, grad_x, grad_weight."""
    xhat, r, dims = _standard(x, rstd, groups, layer_dims)

    def average(each: Tensor) -> Tensor:
        return each.mean(dims, keepdim=True)

    def s(t: Tensor) -> Tensor:
        return r * (t - average(t) - xhat * average(t * xhat))

    def spread(param: Tensor | None, missing: float) -> Tensor:
        return _spread(param, x, layer_dims, missing).expand(x.shape).reshape(xhat.shape)

    w, p, q = spread(weight, 1), spread(grad_grad_weight, 0), spread(grad_grad_bias, 0)
    g = grad_y.double().reshape(xhat.shape)
    u = torch.zeros_like(g) if grad_grad_x is None else grad_grad_x.double().reshape(xhat.shape)
    a = w * g
    grad_x = s(p * g) - r * (xhat * average(a * s(u)) + average(u * xhat) * s(a) + average(a * xhat) * s(u))
    grad_grad_y = w * s(u) + p * xhat + q
    results = [each.reshape(x.shape).to(x.dtype) for each in (grad_grad_y, grad_x)]
    by_weight = _by_param(g * s(u), weight, x, layer_dims, needs_params)
    return results[0] if needs_y else x.new_empty(0), results[1], by_weight
