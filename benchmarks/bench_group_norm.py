"""Normalization layers, forward, backward and double backward, against those of PyTorch: same graph on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from benchmarks import contest, roofline
from benchmarks.bench_closed_form import memory
from wgan_kernels.nn import convert_layers

IMAGES = (64, 128, 16, 16)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LayerNorm": (lambda: nn.LayerNorm(1024), (256, 1024)),
    "LayerNorm of images": (lambda: nn.LayerNorm(IMAGES[1:]), IMAGES),
    "GroupNorm": (lambda: nn.GroupNorm(8, 128), IMAGES),
    "GroupNorm, one group": (lambda: nn.GroupNorm(1, 128), IMAGES),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(128), IMAGES),
    "GroupNorm, channels_last": (lambda: nn.GroupNorm(8, 128), IMAGES),
}
# x; x and g; x, g and u are read; y, grad_x and once more grad_x written.
TENSORS_MOVED = 2 + 3 + 4


def second_order(layer: nn.Module, x: Tensor, grad_y: Tensor, along: Tensor) -> list[Tensor]:
    """y; its gradient g by x; that of <g, along> by x and the parameters, as a gradient penalty asks for them."""
    y = layer(x)
    (first,) = torch.autograd.grad(y, x, grad_y, create_graph=True)
    params = [param for name, param in layer.named_parameters() if name != "bias"]
    return [y, first, *torch.autograd.grad(first, [x, *params], along)]


def compiled(layer: nn.Module) -> Callable[..., list[Tensor]]:
    """The same by torch.func, which torch.compile can differentiate twice."""
    params = {name: param.detach() for name, param in layer.named_parameters()}

    def gradient(x: Tensor, params: dict[str, Tensor], grad_y: Tensor) -> tuple[Tensor, Tensor]:
        y, pull = torch.func.vjp(lambda x: torch.func.functional_call(layer, params, x), x)
        return pull(grad_y)[0], y

    def whole(x: Tensor, grad_y: Tensor, along: Tensor) -> list[Tensor]:
        first, pull, y = torch.func.vjp(lambda x, params: gradient(x, params, grad_y), x, params, has_aux=True)
        by_x, by_params = pull(along)
        return [y, first, by_x, *[grad for name, grad in by_params.items() if name != "bias"]]

    return torch.compile(whole, fullgraph=True)


@pytest.mark.parametrize("case", CASES)
def bench_forward_backward_double_backward(record, case: str) -> None:
    make, shape = CASES[case]
    torch.manual_seed(0)
    theirs, ours = make(), convert_layers(make())
    x, grad_y, along = (torch.randn(shape) for _ in range(3))
    if "channels_last" in case:
        x, grad_y, along = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad_y, along))
    whole, constant = compiled(theirs), x.clone()
    x.requires_grad_()

    def calls(layer: nn.Module) -> Callable[[], Sequence[Tensor]]:
        return lambda: second_order(layer, x, grad_y, along)

    contenders = {
        contest.OURS: calls(ours),
        "eager": calls(theirs),
        "compiled whole": lambda: whole(constant, grad_y, along),
    }
    most = {name: memory(contenders[name]) for name in (contest.OURS, "eager")}
    floor = TENSORS_MOVED * x.numel() * x.element_size() / roofline.copy_rate()
    row = contest.hold(
        f"{case}, {shape}: forward + backward + double backward",
        contenders,
        bars={"eager": 4.0},
        floor=floor,
        rounds=200 if x.numel() < 1 << 20 else 30,
    )
    row.memory, row.memory_bar = most[contest.OURS] / most["eager"], 0.6
    record(row, contenders[contest.OURS])


@pytest.mark.parametrize("shape", [(256, 1024), (64, 256)], ids=str)
def bench_first_order(record, shape: tuple[int, int]) -> None:
    """What a step without a penalty does."""
    torch.manual_seed(0)
    theirs, ours = nn.LayerNorm(shape[1]), convert_layers(nn.LayerNorm(shape[1]))
    x, grad_y = torch.randn(shape, requires_grad=True), torch.randn(shape)

    def calls(layer: nn.Module) -> Callable[[], Sequence[Tensor]]:
        return lambda: torch.autograd.grad(layer(x), [x, *layer.parameters()], grad_y)

    contenders = {contest.OURS: calls(ours), "eager": calls(theirs)}
    row = contest.hold(f"LayerNorm, {shape}: forward + backward", contenders, rounds=400)
    record(row, contenders[contest.OURS])
