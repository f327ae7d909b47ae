"""The trainer's networks: their layers, and that every one of them is checked."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from trainer_runs import checked, keep_threads, small  # noqa: F401

pytest.importorskip("jsonargparse")

import torch  # noqa: E402
from torch import nn  # noqa: E402

import wgan_kernels as wk  # noqa: E402
from wgan_kernels.trainer.networks import ARCHITECTURES, Sizes  # noqa: E402
from wgan_kernels.trainer.objectives import OBJECTIVES  # noqa: E402

CONVOLUTIONS = [name for name, each in ARCHITECTURES.items() if each.least_side]


@pytest.mark.parametrize("architecture", CONVOLUTIONS)
def test_every_architecture_is_checked(architecture: str) -> None:
    training = small("--architecture", architecture, "--width", "4", "--critic-steps", "1", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checked(training, 1).checks == 2
    assert training.evaluation_samples().shape == (2000, 256)
    assert wk.check_critic(training.networks.critic, training.data.train[:2]) == []


@pytest.mark.parametrize("side", [8, 16, 64])
def test_dcgan_layers(side: int) -> None:
    """Halvings down to 4x4 and up again, whatever the side; normalisation where the design of DCGAN has it."""
    halvings = {8: 1, 16: 2, 64: 4}[side]
    sizes = Sizes((3, side, side), 32, 8, True)
    critic = ARCHITECTURES["dcgan-layer-norm"].make_critic(sizes, 1)
    generator = ARCHITECTURES["dcgan"].make_generator(sizes)
    fake = generator(torch.randn(3, 32))
    assert fake.shape == (3, 3 * side * side) and fake.abs().max() <= 1
    assert critic(fake).shape == (3, 1) and wk.check_critic(critic, fake.detach()) == []
    kinds: tuple[Any, ...] = (nn.LayerNorm, nn.BatchNorm2d, nn.Conv2d, nn.ConvTranspose2d)
    count = [sum(isinstance(m, kind) for m in (*critic, *generator)) for kind in kinds]
    assert count == [halvings - 1, halvings, halvings, halvings + 1]
    plain = ARCHITECTURES["dcgan-constant"].make_generator(sizes)
    widths = {m.out_channels for m in plain if isinstance(m, nn.ConvTranspose2d)}
    assert widths == {8, 3} and not any(isinstance(m, nn.BatchNorm2d) for m in plain)


def test_a_penalised_critic_has_layers_that_are_made_for_it() -> None:
    sizes, architecture = Sizes((1, 16, 16), 4, 4, True), ARCHITECTURES["dcgan-layer-norm"]
    for objective, kind in zip(OBJECTIVES["wgan-gp"], (wk.nn.LayerNorm, nn.LayerNorm)):
        critic = objective().make_networks(architecture, sizes).critic
        assert [type(layer) for layer in critic if isinstance(layer, nn.LayerNorm)] == [kind]


@pytest.mark.parametrize("side", [4, 12, 28])
def test_dcgan_refuses_other_sides(side: int) -> None:
    with pytest.raises(ValueError, match=f"side must be a power of 2, 8 or more, got {side}"):
        ARCHITECTURES["dcgan"].make_critic(Sizes((1, side, side), 32, 8, True), 1)


def test_deep_critic_has_twelve_layers() -> None:
    critic = ARCHITECTURES["mlp-deep"].make_critic(Sizes((2,), 32, 8, False), 1)
    assert sum(isinstance(layer, nn.Linear) for layer in critic) == 12
    assert [layer.out_features for layer in ARCHITECTURES["mlp"].make_critic(Sizes((2,), 32, 512, False), 1)
            if isinstance(layer, nn.Linear)] == [512] * 4 + [1]  # fmt: skip


def test_virtual_batch_normalisation() -> None:
    training = small("--architecture", "dcgan", "--width", "4", "--virtual-batch-norm", "--critic-steps", "1")
    generator = training.networks.generator
    z = torch.randn(5, 32, dtype=torch.float64)
    alone = torch.cat([generator(each) for each in z.split(1)])
    torch.testing.assert_close(generator(z), alone)  # samples do not see each other
    norm = generator.network[2]
    x = torch.randn(norm.size + 1, 8, 3, 3, dtype=torch.float64)
    everything = nn.functional.batch_norm(x, None, None, training=True)  # of the reference batch and the one sample
    torch.testing.assert_close(norm(x)[-1], everything[-1])
    assert checked(training, 1).checks == 2
