"""WGAN-GP with residual networks on scikit-learn's digits of 16x16; layer normalisation in the critic."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import wgan_kernels as wk

LATENT, SIDE = 64, 16


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="generator steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--critic-steps", type=int, default=5, help="critic steps per generator step")
    parser.add_argument("--channels", type=int, default=24)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class CriticBlock(nn.Module):
    """(B, C, side, side) -> (B, C, side / 2, side / 2)."""

    def __init__(self, channels, side):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm([channels, side, side]), nn.LayerNorm([channels, side, side])
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        h = self.conv1(functional.relu(self.norm1(x)))
        h = self.conv2(functional.relu(self.norm2(h)))
        return functional.avg_pool2d(h, 2) + self.shortcut(functional.avg_pool2d(x, 2))


class GeneratorBlock(nn.Module):
    """(B, C, side, side) -> (B, C, 2 side, 2 side)."""

    def __init__(self, channels):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        h = functional.interpolate(functional.relu(self.norm1(x)), scale_factor=2)
        h = self.conv2(functional.relu(self.norm2(self.conv1(h))))
        return h + functional.interpolate(x, scale_factor=2)


def make_critic(channels):
    blocks = [CriticBlock(channels, side) for side in (16, 8)]
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), *blocks, head)


def make_generator(channels):
    stem = [nn.Linear(LATENT, channels * 16), nn.Unflatten(1, (channels, 4, 4))]
    head = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 1, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*stem, GeneratorBlock(channels), GeneratorBlock(channels), *head)


@torch.no_grad()
def distance(generator, held_out):
    """Unbiased MMD^2 to images that were not learned from, as wide as their median distance; about 0 for their like."""
    real = held_out.flatten(1)
    fake = generator(torch.randn(len(real), LATENT, device=real.device)).flatten(1)
    return wk.mmd2(fake, real, wk.kernels.RBF(torch.pdist(real).median().item())).item()


def main():
    options = parse()
    torch.manual_seed(options.seed)
    device, size = options.device, options.batch_size
    images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    images = functional.interpolate(images[torch.randperm(len(images))], size=(SIDE, SIDE), mode="bilinear").to(device)
    held_out, images = images[:400], images[400:]
    critic, generator = make_critic(options.channels).to(device), make_generator(options.channels).to(device)
    critic_optimizer = torch.optim.Adam(critic.parameters(), options.lr, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), options.lr, betas=(0.0, 0.9))
    untrained = distance(generator, held_out)
    print("penalty by", *wk.explain_route(critic, images[:size]), sep=": ")

    for step in range(1, options.steps + 1):
        for _ in range(options.critic_steps):
            real = images[torch.randint(len(images), (size,), device=device)]
            fake = generator(torch.randn(size, LATENT, device=device)).detach()
            penalty = wk.gradient_penalty(critic, real, fake)
            critic_loss = critic(fake).mean() - critic(real).mean() + penalty
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()

        generator_loss = -critic(generator(torch.randn(size, LATENT, device=device))).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if step % 25 == 0:
            print(f"step {step}: critic loss {critic_loss.item():.4f}, penalty {penalty.item():.4f}")

    print(f"MMD^2 to held-out images: {distance(generator, held_out):.4f}, untrained: {untrained:.4f}")


if __name__ == "__main__":
    main()
