"""check_critic: what in a critic breaks WGAN-GP or its second derivative, and what to use instead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from . import _checks
from .critics import Score, called_eagerly, uses_batch_statistics
from .points import in_groups
from .state import State


class Finding(NamedTuple):
    """A layer, what is wrong with it in a penalised critic, and what to use instead."""

    layer: str  # its name in the critic, '' for the critic as a whole
    problem: str
    instead: str


_ATTENTION = (
    "PyTorch's fused attention has no second derivative",
    "call the critic under torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)",
)


def check_critic(
    critic: Callable[..., Any],
    sample: Tensor,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    output: int | str | Callable[[Any], Tensor] | None = None,
    pac: int = 1,
) -> list[Finding]:
    """What breaks the gradient penalty of a critic: layers that couple samples, end in a sigmoid, lack derivatives.

    Args:
        critic, args, kwargs, output, pac: as gradient_penalty takes them.
        sample: (B, ...) samples such as the critic will see, two at least, or two groups of `pac`.

    Returns:
        A list of (layer, problem, instead), empty for a critic with which nothing is wrong.

    Raises:
        TypeError: a critic or sample that gradient_penalty would refuse.
        ValueError: likewise; fewer than two samples, or groups.

    Runs the critic forward and backward a few times, and puts its buffers and torch's random numbers back afterwards;
    the gradients of its parameters stay as they are.
    """
    _checks.critic(critic, args, kwargs)
    _checks.batched("sample", sample)
    _checks.positive_integer("pac", pac)
    groups = in_groups("sample", sample, pac).shape[0]
    if groups < 2:
        raise ValueError(f"sample must hold two samples, or two groups of pac={pac}, at least, got {sample.shape[0]}")
    score = Score(critic, args, kwargs, output, groups)
    state = State(critic, sample)
    try:
        with torch.inference_mode(False), torch.enable_grad(), called_eagerly():
            findings = _of_layers(critic, sample)
            return findings + _of_calls(score, sample.detach().clone(), findings)
    finally:
        state.restore()


def _of_layers(critic: Any, sample: Tensor) -> list[Finding]:
    if not isinstance(critic, nn.Module):
        return []
    found = []
    for name, module in critic.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.SyncBatchNorm):
            found.append(Finding(name, f"{kind} couples samples and ranks", "LayerNorm or GroupNorm"))
        elif uses_batch_statistics(module):
            found.append(Finding(name, f"{kind} in training mode couples samples", "LayerNorm or GroupNorm, or eval()"))
        elif isinstance(module, nn.RNNBase) and sample.is_cuda:
            instead = "call the critic under torch.backends.cudnn.flags(enabled=False)"
            found.append(Finding(name, f"{kind} of cuDNN has no second derivative", instead))
    last = [(name, module) for name, module in critic.named_modules() if not list(module.children())][-1:]
    for name, module in last:
        if isinstance(module, (nn.Sigmoid, nn.Softmax, nn.Tanh)):
            problem = f"{type(module).__name__} bounds the scores"
            found.append(Finding(name, problem, "no activation: a critic's output is linear"))
    return found


def _of_calls(score: Score, x: Tensor, known: list[Finding]) -> list[Finding]:
    """What only shows when the critic runs: attention, coupled samples, derivatives that are missing."""
    with _Attention(score.critic) as attention:
        scores = score(x.requires_grad_())
    if not scores.requires_grad:
        return [Finding("", "the scores do not depend on the samples", "scores that do")]
    found = []
    (first,) = torch.autograd.grad(scores[:1].sum(), x, retain_graph=True, allow_unused=True)
    if not known and first is not None and first[len(x) // score.rows :].any():
        problem = "the score of a sample depends on the other samples"
        found.append(Finding("", problem, "layers that treat samples one by one, or pac= for groups"))
    try:
        (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        if gradient.requires_grad:
            leaves = [p for p in score.critic.parameters()] if isinstance(score.critic, nn.Module) else []
            wanted = [x, *[p for p in leaves if p.requires_grad]]
            torch.autograd.grad(gradient.square().sum(), wanted, allow_unused=True)
    except (RuntimeError, NotImplementedError) as error:
        found += [Finding(layer, *_ATTENTION) for layer in attention.layers]
        if not attention.layers:
            problem = f"there is no second derivative: {str(error).partition(chr(10))[0]}"
            found.append(Finding("", problem, "operations that torch can differentiate twice"))
    return found


# The second calls the first, which no mode sees then.
_ATTENTIONS = (functional.scaled_dot_product_attention, functional.multi_head_attention_forward)


class _Attention(TorchFunctionMode):
    """Notes the names of the layers that call scaled_dot_product_attention."""

    def __init__(self, critic: Any) -> None:
        super().__init__()
        self.layers: list[str] = []
        self._running = [""]
        self._modules = list(critic.named_modules()) if isinstance(critic, nn.Module) else []
        self._hooks = contextlib.ExitStack()

    def __enter__(self) -> _Attention:
        for name, module in self._modules:
            self._hooks.enter_context(_removed(module.register_forward_pre_hook(self._entering(name))))
            self._hooks.enter_context(_removed(module.register_forward_hook(self._leaving, always_call=True)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()

    def _entering(self, name: str) -> Callable[..., None]:
        return lambda *_: self._running.append(name)

    def _leaving(self, *_: Any) -> None:
        self._running.pop()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _ATTENTIONS and self._running[-1] not in self.layers:
            self.layers.append(self._running[-1])
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def _removed(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()
