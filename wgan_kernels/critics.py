"""What a critic gives, how it is called, and the layers that a gradient penalty cannot live with."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def scores_of(result: Any, output: int | str | Callable[[Any], Tensor] | None, rows: int) -> Tensor:
    """The critic's scores, (rows, ...), picked from what it returned."""
    if callable(output):
        result = output(result)
    elif output is not None:
        try:
            if isinstance(result, Tensor) and not isinstance(output, int):
                raise TypeError("a tensor has no keys")
            result = result[output]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"output must be an index or key of what the critic returns, got {output!r} for a "
                f"{type(result).__name__}"
            ) from error
    if not isinstance(result, Tensor):
        raise TypeError(
            f"critic must return a tensor of scores, got {type(result).__name__}: "
            "say which part is the score with output="
        )
    if not result.dtype.is_floating_point:
        raise TypeError(f"critic must return real floating scores, got {result.dtype}")
    if result.dim() == 0 or result.shape[0] != rows:
        groups = result.shape[0] if result.dim() > 0 else 0
        hint = "a mean over the batch would scale every gradient"
        if 1 < groups < rows and rows % groups == 0:
            hint += f"; a critic that judges {rows // groups} samples together needs pac={rows // groups}"
        raise ValueError(
            f"critic must return one row of scores per sample, ({rows},) or ({rows}, ...), got "
            f"{tuple(result.shape)}: {hint}"
        )
    return result


class Score(NamedTuple):
    """A critic as a function of its samples alone: (B, ...) to scores, (rows, ...)."""

    critic: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any] | None
    output: int | str | Callable[[Any], Tensor] | None
    rows: int

    def is_bare(self) -> bool:
        """Whether the critic is given nothing but samples, and gives nothing but scores."""
        return not self.args and not self.kwargs and self.output is None

    def __call__(self, x: Tensor) -> Tensor:
        return scores_of(self.critic(x, *self.args, **(self.kwargs or {})), self.output, self.rows)


def called_eagerly() -> AbstractContextManager[Any]:
    """Inside, compiled critics and compiled parts of them run as the modules they were made of.

    What torch.compile makes has a first derivative only, and none that can be recorded layer by layer.
    """
    if torch.compiler.is_compiling() or "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def runs_its_forward_alone(module: nn.Module) -> bool:
    """Whether a call of the module is a call of its class's forward: no hooks, nothing put in its place."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def uses_batch_statistics(module: nn.Module) -> bool:
    """Whether the module normalises by the batch that it is given, and so couples its samples."""
    batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return batch_norm and (module.training or module.running_mean is None)


def warn_of_batch_norm(critic: Callable[..., Any]) -> None:
    if torch.compiler.is_compiling() or not isinstance(critic, nn.Module):
        return
    # By hand over the children: modules() takes ten times as long, which shows in a step of a small critic.
    left = [critic]
    while left:
        module = left.pop()
        if uses_batch_statistics(module):
            warnings.warn(
                f"critic holds {type(module).__name__} in training mode or without running statistics, which couples "
                "the samples of a batch: the gradient penalty is defined per sample. Use LayerNorm or GroupNorm, or "
                "call eval() on it",
                UserWarning,
                stacklevel=3,
            )
            return
        left.extend(child for child in module._modules.values() if child is not None)
