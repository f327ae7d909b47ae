"""minibatch_discrimination: how close each sample of a batch is to the others, without a matrix of pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .. import _backend, _checks
from ..reference import minibatch_discrimination as reference
from ._autograd import twice_differentiable


def _fake(m: Tensor, begin: int, end: int) -> Tensor:
    return m.new_empty(((m.shape[0] if end < 0 else end) - begin, m.shape[1]))


def _fake_backward(grad_o: Tensor, m: Tensor, begin: int, end: int) -> Tensor:
    return m.new_empty(m.shape)


def _fake_double_backward(
    grad_grad_m: Tensor, grad_o: Tensor, m: Tensor, begin: int, end: int
) -> tuple[Tensor, Tensor]:
    return grad_o.new_empty(grad_o.shape), m.new_empty(m.shape)


def register(back_end: str = "") -> Callable[..., Any]:
    return twice_differentiable("minibatch_discrimination", back_end, _fake, _fake_backward, _fake_double_backward)


_minibatch_discrimination = register()


def minibatch_discrimination(m: Tensor, *, begin: int = 0, end: int = -1) -> Tensor:
    """How close each sample of a batch is to the others: o_if = sum over j != i of exp(-||m_if - m_jf||_1).

    Args:
        m: (B, F, K) projected samples, float64, float32, bfloat16 or float16: F features of K numbers.
        begin, end: the rows i to compute, against all rows j; end -1 means to the last.

    Returns:
        (end - begin, F) in the dtype of m; between 0 and B - 1.

    Raises:
        TypeError: m is not a dense floating tensor.
        ValueError: m has not three dimensions; begin and end are not rows of m.

    Differentiable twice; a third derivative raises. Where two samples agree in a number, its derivative is that of
    torch.abs: sign(0) = 0, and the derivative of a sign is 0 everywhere. Pairs are formed tile by tile and kept
    nowhere, so that memory is that of a few copies of m, in backward and double backward too. Sums run in float64 in a
    fixed order: the same input gives the same bits for any number of threads.
    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 3.2.
    """
    _checks.batched("m", m)
    if m.dim() != 3:
        raise ValueError(f"m must have the dimensions (B, F, K), got a tensor of shape {tuple(m.shape)}")
    if not 0 <= begin <= (len(m) if end < 0 else end) <= len(m):
        raise ValueError(f"begin and end must be rows of m, which has {len(m)}, got begin={begin} and end={end}")
    if _backend.is_native(m, "minibatch_discrimination"):
        return _minibatch_discrimination(m, begin, end)
    if _backend.is_triton(m):
        from . import _triton_operators

        return _triton_operators.minibatch_discrimination(m, begin, end)
    return reference.minibatch_discrimination(m, begin, end)
