"""Layers of PyTorch in a critic, replaced by the ones here that compute the same."""

from __future__ import annotations

from torch import nn

from . import normalization

_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LayerNorm: normalization.LayerNorm,
    nn.GroupNorm: normalization.GroupNorm,
    nn.InstanceNorm2d: normalization.InstanceNorm2d,
}


def convert_layers(critic: nn.Module) -> nn.Module:
    """Gives a critic's normalization layers fast second derivatives, in place.

    `torch.nn.LayerNorm`, `GroupNorm` and `InstanceNorm2d` become the layers of the same names in `wgan_kernels.nn`.
    Modules keep their identity: parameters, buffers, hooks, names and the training flag are what they were, so that
    optimizers and state_dicts go on as before. Subclasses of these layers are left alone: they may do something else.
    A converted critic can be copied, pickled, compiled and traced, but not scripted by torch.jit.

    Args:
        critic: any module.

    Returns:
        The critic itself. To convert it again changes nothing.

    Raises:
        TypeError: something that is no module.
    """
    if not isinstance(critic, nn.Module):
        raise TypeError(f"critic must be a torch.nn.Module, got {type(critic).__name__}")
    for module in critic.modules():
        replacement = _REPLACEMENTS.get(type(module))
        if replacement is not None:
            # Another class for the same object: whoever holds it, and all that hangs on it, need not know.
            module.__class__ = replacement
    return critic
