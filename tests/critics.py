"""Critics of every kind that people train, small."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from cases import samples
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm

from wgan_kernels.closed_form import closed_form_penalty
from wgan_kernels.ops.norm_penalty import weighted_norm_penalty


def closed_form(
    critic: Callable[[Tensor], Tensor], x: Tensor, target: float = 1.0, one_sided: bool = False
) -> tuple[Tensor, Tensor]:
    """What eager.eager_penalty gives, without double backward."""

    settings = {"target": target, "one_sided": one_sided, "reduction": "mean", "weight": 10.0}
    return closed_form_penalty(critic, x, lambda grad: weighted_norm_penalty(grad, **settings))


class Call(nn.Module):
    """A layer that is a function of x and of the layers below."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def residual(x: Tensor, conv: nn.Module, other: nn.Module) -> Tensor:
    return x + other(functional.relu(conv(functional.relu(x))))


def residual_in_place(x: Tensor, conv: nn.Module, other: nn.Module) -> Tensor:
    h = other(functional.relu(conv(functional.leaky_relu(x, 0.3)), inplace=True))
    h += x
    return functional.avg_pool2d(h, 2)


def minibatch_deviation(x: Tensor) -> Tensor:
    """The deviation over groups of the batch, as one more feature."""
    groups = x.reshape(2, -1, *x.shape[1:])
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean([1, 2, 3], keepdim=True)
    return torch.cat([x, deviation.repeat(2, 1, *x.shape[2:])], 1)


def attention(x: Tensor, queries: nn.Module, keys: nn.Module, values: nn.Module) -> Tensor:
    weights = torch.softmax(queries(x).flatten(2).transpose(1, 2) @ keys(x).flatten(2), -1)
    return x + (weights @ values(x).flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight.tanh()


def doubled() -> nn.Module:
    layer = nn.Conv2d(4, 4, 3)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def shared() -> Sequence[nn.Module]:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    return [layer, nn.ReLU(), layer, nn.LeakyReLU(0.1, True), layer]


def evaluated(layer: nn.Module) -> nn.Module:
    """Inference-mode batch normalisation with statistics and an affine map of its own."""
    with torch.no_grad():
        for buffer in (layer.running_mean, layer.running_var, layer.weight):
            buffer.uniform_(0.5, 1.5)
    return layer.eval()


def conv(*args: int, **kwargs: object) -> nn.Module:
    return nn.Conv2d(4, *(args or (4, 3)), **kwargs)


# The layer under test, between a convolution of three channels into four on 8x8 and more convolutions.
IMAGE_LAYERS: dict[str, Callable[[], Sequence[nn.Module]]] = {
    "none": lambda: [],
    "strided": lambda: [conv(6, 4, 2, 1)],
    "no bias": lambda: [conv(bias=False)],
    "grouped, dilated": lambda: [conv(6, 3, groups=2, dilation=2, padding=2)],
    "padded to the same size": lambda: [conv(padding="same")],
    "padded in circles": lambda: [conv(padding=1, padding_mode="circular")],
    "transposed": lambda: [nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, dilation=2)],
    "residual": lambda: [Call(residual, conv(padding=1), conv(padding=1))],
    "residual in place": lambda: [Call(residual_in_place, conv(padding=1), conv(padding=1))],
    "in place under a sum": lambda: [Call(lambda x, f: f(functional.relu(x, inplace=True)) + x, conv(padding=1))],
    "concat": lambda: [Call(lambda x, f: torch.cat([f(x), x, x.flip(2)], 1)[:, ::2], conv(padding=1))],
    "view": lambda: [Call(lambda x: x.view(x.shape[0], 8, 8, 4).permute(0, 3, 1, 2))],
    "transpose": lambda: [nn.Flatten(2), nn.Linear(64, 9), nn.Unflatten(2, (3, 3)), Call(lambda x: x.mT)],
    "ReLU": lambda: [nn.ReLU()],
    "ReLU in place": lambda: [nn.ReLU(True)],
    "torch.relu": lambda: [Call(torch.relu), conv(), Call(lambda x: x.relu()), conv(), Call(lambda x: x.relu_())],
    "LeakyReLU": lambda: [nn.LeakyReLU(0.2)],
    "LeakyReLU in place": lambda: [nn.LeakyReLU(0.2, True)],
    "LeakyReLU of a slope below zero": lambda: [nn.LeakyReLU(-0.5)],
    "PReLU": lambda: [nn.PReLU(), conv(), nn.PReLU(4)],
    "hard tanh": lambda: [nn.Hardtanh(-0.5, 0.5), conv(), nn.ReLU6()],
    "abs and maximum": lambda: [Call(lambda x: torch.maximum(x.abs(), 0.1 * x))],
    "average pooling": lambda: [nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3)],
    "max pooling": lambda: [nn.MaxPool2d(3, 2), nn.AdaptiveMaxPool2d(2)],
    "nearest": lambda: [nn.Upsample(scale_factor=2)],
    "bilinear": lambda: [nn.Upsample(scale_factor=1.5, mode="bilinear")],
    "pixel shuffle": lambda: [nn.PixelUnshuffle(2), nn.ReLU(), nn.PixelShuffle(4)],
    "padding": lambda: [nn.ZeroPad2d(1), nn.ReflectionPad2d(1), nn.ConstantPad2d(1, 3.0)],
    "dropout": lambda: [nn.Dropout(0.3), nn.ReLU(), nn.Dropout2d(0.2)],
    "functional dropout": lambda: [Call(lambda x: functional.dropout(x, 0.4))],
    "dropout of channels": lambda: [Call(lambda x: functional.dropout1d(x.flatten(2), 0.4).view_as(x)), nn.Tanh()],
    "dropout in place": lambda: [conv(), nn.Dropout(0.4, inplace=True)],
    "dropout of everything or nothing": lambda: [
        Call(lambda x: functional.dropout(x, 1.0) + functional.dropout(x, 0.0))
    ],
    "dropout of a transposed layout": lambda: [Call(lambda x: functional.dropout(x.mT, 0.4).mT)],
    "identity": lambda: [nn.Identity()],
    "batch norm, inference": lambda: [evaluated(nn.BatchNorm2d(4)), nn.ReLU(), conv()],
    "LayerNorm": lambda: [nn.LayerNorm([4, 8, 8])],
    "LayerNorm, last dimension, not affine": lambda: [nn.LayerNorm(8, elementwise_affine=False)],
    "LayerNorm, no bias": lambda: [nn.LayerNorm([8, 8], bias=False)],
    "GroupNorm": lambda: [nn.GroupNorm(2, 4)],
    "GroupNorm of one group": lambda: [nn.GroupNorm(1, 4), nn.ReLU(), conv(), nn.GroupNorm(4, 4, affine=False)],
    "InstanceNorm": lambda: [nn.InstanceNorm2d(4)],
    "InstanceNorm, affine": lambda: [nn.InstanceNorm2d(4, affine=True)],
    "InstanceNorm with statistics": lambda: [nn.InstanceNorm2d(4, track_running_stats=True), nn.ReLU(), conv()],
    "InstanceNorm, inference": lambda: [evaluated(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))],
    "RMSNorm": lambda: [nn.RMSNorm([4, 8, 8])],
    "minibatch deviation": lambda: [Call(minibatch_deviation)],
    "tanh": lambda: [nn.Tanh()],
    "sigmoid": lambda: [nn.Sigmoid()],
    "softplus": lambda: [nn.Softplus(), conv(), nn.Softplus(2.0, 1.0)],
    "SiLU": lambda: [nn.SiLU()],
    "SiLU in place": lambda: [nn.SiLU(True)],
    "GELU": lambda: [nn.GELU(), conv(), nn.GELU("tanh")],
    "ELU": lambda: [nn.ELU(0.7)],
    "attention": lambda: [Call(attention, conv(2, 1), conv(2, 1), conv(4, 1))],
    "spectral norm": lambda: [parametrizations.spectral_norm(conv()), nn.ReLU()],
    "spectral norm, old": lambda: [old_spectral_norm(conv()), nn.ReLU()],
    "weight norm": lambda: [parametrizations.weight_norm(conv()), nn.ReLU()],
    "a parametrization": lambda: [doubled(), nn.ReLU()],
    "shared": shared,
}


class Attending(nn.Module):
    """PyTorch's attention, whose fused kernels cannot be differentiated twice; samples: (B, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.attention = nn.Linear(1, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.down = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x.unsqueeze(-1))
        return self.down(self.attention(h, h, h, need_weights=False)[0].flatten(1))


class OwnAttention(Attending):
    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x.unsqueeze(-1))
        return self.down(nn.functional.scaled_dot_product_attention(*[h.unsqueeze(1)] * 3).flatten(1))


def convolutional() -> nn.Module:
    torch.manual_seed(5)
    layers = [nn.Conv2d(3, 6, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3, 1, 1), nn.GroupNorm(2, 6), nn.Tanh()]
    return nn.Sequential(*layers, nn.Conv2d(6, 1, 1)).double()


def dense() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Linear(6, 9), nn.LeakyReLU(0.1), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 1)).double()


def mlp(norm: bool = False) -> tuple[nn.Module, tuple[int, ...]]:
    layers = [nn.Linear(6, 16), *([nn.LayerNorm(16)] if norm else []), nn.Tanh(), nn.Linear(16, 16), nn.Softplus()]
    return nn.Sequential(*layers, nn.Linear(16, 1)), (7, 6)


def dcgan(patches: bool = False) -> tuple[nn.Module, tuple[int, ...]]:
    """A DCGAN critic in small; with patches, one that scores every part of the image."""
    layers = [nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 4, 2, 1), nn.LeakyReLU(0.2)]
    end = [nn.Conv2d(8, 1, 1)] if patches else [nn.Flatten(), nn.Linear(32, 1)]
    return nn.Sequential(*layers, *end), (5, 3, 8, 8)


CRITICS = {
    "mlp": mlp,
    "mlp with layer norm": lambda: mlp(norm=True),
    "conv": dcgan,
    "conv, patches": lambda: dcgan(patches=True),
}


def problem(name: str, channels_last: bool = False) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A critic, real and generated samples, and mixing numbers, float64."""
    torch.manual_seed(3)
    critic, shape = CRITICS[name]()
    critic = critic.double()
    with torch.no_grad():  # as torch starts them, gradients are far below 1 and the one-sided penalty is all zero
        for param in critic.parameters():
            param.mul_(2.5)
    real, fake = samples(shape, torch.float64, seed=1), samples(shape, torch.float64, seed=2)
    if channels_last:
        critic = critic.to(memory_format=torch.channels_last)
        real, fake = (x.contiguous(memory_format=torch.channels_last) for x in (real, fake))
    return critic, real, fake, torch.rand(shape[0], dtype=torch.float64)
