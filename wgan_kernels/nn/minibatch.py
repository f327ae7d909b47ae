"""Layers that tell a critic how alike the samples of a batch are, against generators that give the same one always."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .. import _checks
from ..ops import _collectives
from ..ops.minibatch_discrimination import minibatch_discrimination
from ..ops.minibatch_stddev import minibatch_stddev
from ..ranks import agree, check_group, on_the_tape


class MinibatchDiscrimination(nn.Module):
    """Appends to each sample's features how close it is to the other samples of the batch.

    With m_i = x_i . weight, `out_features` rows of `kernel_dim` numbers, it appends
    o_if = sum over j != i of exp(-||m_if - m_jf||_1).

    Args:
        in_features: numbers of a sample that goes in.
        out_features: numbers that are appended to it.
        kernel_dim: numbers of which each of these measures a distance.
        group: a process group of torch.distributed, whose ranks share their samples: those of this rank are then held
            against those of all ranks, and every rank has to make the same calls, forward and backward. Not for
            torch.compile. Copies of the module have the same group; it cannot be pickled: save the state_dict.

    Attributes:
        weight: (in_features, out_features, kernel_dim), the only parameter, normal at first with a standard deviation
            of 1 / (kernel_dim sqrt(in_features)), by which distances between samples of unit variance are about 1.

    Takes x of shape (B, in_features), float64, float32, bfloat16 or float16, and returns
    (B, in_features + out_features) in the dtype of x.

    Raises:
        TypeError: x is not a dense floating tensor; dtypes of ranks differ.
        ValueError: x has another shape; sizes below 1; ranks that do not fit together.

    The B x B x out_features closenesses are stored nowhere: memory grows with B alone. Differentiable twice; a third
    derivative raises. Scores of a critic with this layer depend on the whole batch: WGAN-GP asks for a gradient for
    each sample by itself, so that its penalty then is of the gradient of the sum of all scores by each sample.
    With a group the gradient is that of the sum of all ranks' losses, as DistributedDataParallel averages it.
    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 3.2.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_dim: int,
        *,
        group: dist.ProcessGroup | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = _checks.positive_integer("in_features", in_features)
        self.out_features = _checks.positive_integer("out_features", out_features)
        self.kernel_dim = _checks.positive_integer("kernel_dim", kernel_dim)
        if group is not None:
            check_group(group)
        self.group = group
        self.weight = nn.Parameter(torch.empty(in_features, out_features, kernel_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def __deepcopy__(self, memo: dict[int, Any]) -> MinibatchDiscrimination:
        # Averages of a critic's weights are kept in copies of it, and a process group has none.
        memo[id(self.group)] = self.group
        memo[id(self)] = copied = self.__class__.__new__(self.__class__)
        copied.__setstate__(copy.deepcopy(self.__dict__, memo))
        return copied

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=1 / (self.kernel_dim * self.in_features**0.5))

    def forward(self, x: Tensor) -> Tensor:
        if self.group is None:
            o = minibatch_discrimination(self._projected(x))
        else:
            o = self._among_ranks(x)
        return torch.cat([x, o.to(x.dtype)], 1)

    def _projected(self, x: Tensor) -> Tensor:
        _checks.floating("x", x)
        if x.dim() != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"x must have the shape (B, in_features={self.in_features}), got {tuple(x.shape)}")
        weight = self.weight  # once: a parametrization computes it anew each time
        return (x @ weight.flatten(1)).unflatten(1, weight.shape[1:])

    def _among_ranks(self, x: Tensor) -> Tensor:
        """o of this rank's samples, against those of all ranks."""
        m, call = None, None
        try:
            m = self._projected(x)
            call = _Call(len(m), *m.shape[1:], m.dtype, torch.is_grad_enabled(), m.requires_grad)
        except (TypeError, ValueError, RuntimeError) as error:
            call = error
        calls = agree("MinibatchDiscrimination", call, _COMMON, self.group)
        # Where one rank has to take part in a backward pass all have to.
        m = on_the_tape(m, any(call.needs_grad for call in calls))
        rows = [call.rows for call in calls]
        wide = torch.promote_types(m.dtype, torch.float32)
        everyone, _ = _collectives.gather_rows(m, m.detach()[:0], tuple((n, 0) for n in rows), wide, self.group)
        first = sum(rows[: dist.get_rank(self.group)])
        return minibatch_discrimination(everyone, begin=first, end=first + len(m)).to(m.dtype)

    def extra_repr(self) -> str:
        group = "" if self.group is None else ", group=..."
        return f"{self.in_features}, {self.out_features}, kernel_dim={self.kernel_dim}{group}"


class MinibatchStdDev(nn.Module):
    """Appends to each sample's channels how much the samples of its group differ.

    The standard deviation of each number over the group, sqrt(var + 1e-8), is averaged over the numbers, or over those
    of each block of channels, and is the same at every place of the `num_channels` channels that are appended.

    Args:
        group_size: samples of a group, sample b being in group b mod (B / group_size); None, and more than B, means all
            of them. It has to divide B.
        num_channels: blocks that the channels are split into, and channels that are appended; it has to divide C.

    Takes x of shape (B, C, ...), float64, float32, bfloat16 or float16, and returns (B, C + num_channels, ...) in the
    dtype of x, in channels_last where x is. No parameters.

    Raises:
        TypeError: x is not a dense floating tensor; sizes that are no whole numbers.
        ValueError: x has no channels; sizes below 1, or which do not divide.

    Differentiable twice; a third derivative raises. Scores of a critic with this layer depend on the whole group: see
    MinibatchDiscrimination.
    Source: Karras et al. 2018, "Progressive Growing of GANs", section 3; groups as in Karras et al. 2020, "Analyzing
    and Improving the Image Quality of StyleGAN".
    """

    def __init__(self, group_size: int | None = 4, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size = None if group_size is None else _checks.positive_integer("group_size", group_size)
        self.num_channels = _checks.positive_integer("num_channels", num_channels)

    def forward(self, x: Tensor) -> Tensor:
        value = minibatch_stddev(x, group_size=self.group_size, num_channels=self.num_channels)
        # Sample b is in group b mod M.
        each = value.repeat(x.shape[0] // max(value.shape[0], 1), 1)
        each = each.reshape(*each.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
            each = each.clone(memory_format=torch.channels_last)  # or torch.cat would give up the layout
        return torch.cat([x, each], 1)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"


class _Call(NamedTuple):
    """What a rank was called with, as far as others have to know."""

    rows: int
    out_features: int
    kernel_dim: int
    dtype: torch.dtype
    grad_mode: bool
    needs_grad: bool


_COMMON: dict[str, tuple[type[Exception], str]] = {
    "out_features": (ValueError, "out_features must be the same on all ranks"),
    "kernel_dim": (ValueError, "kernel_dim must be the same on all ranks"),
    "dtype": (TypeError, "x must have the same dtype on all ranks"),
    "grad_mode": (ValueError, "all ranks must record gradients or none"),
}
