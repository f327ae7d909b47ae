"""A DCGAN trained as WGAN-GP on images of 32x32: scikit-learn's digits, or Fashion-MNIST from a folder of IDX files."""

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import wgan_kernels as wk

LATENT = 64


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="generator steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--critic-steps", type=int, default=5, help="critic steps per generator step")
    parser.add_argument("--channels", type=int, default=16, help="of the critic's first layer")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER", help="holds train-images-idx3-ubyte[.gz]")
    return parser.parse_args()


def load_images(folder):
    """(N, 1, 32, 32) images with pixels in [-1, 1]."""
    if folder is None:
        pixels = torch.tensor(load_digits().images, dtype=torch.float32) / 8 - 1
    else:
        (path,) = folder.glob("train-images-idx3-ubyte*")
        content = (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes())
        number, height, width = np.frombuffer(content, ">i4", count=3, offset=4)
        pixels = torch.from_numpy(np.frombuffer(content, np.uint8, offset=16).reshape(number, height, width).copy())
        pixels = pixels.float() / 127.5 - 1
    return functional.interpolate(pixels.unsqueeze(1), size=(32, 32), mode="bilinear")


def make_critic(channels):
    """(B, 1, 32, 32) -> (B, 1), without normalisation."""
    c = channels
    return nn.Sequential(
        nn.Conv2d(1, c, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(c, 2 * c, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * c, 4 * c, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(4 * c, 1, 4), nn.Flatten(),
    )  # fmt: skip


def make_generator(channels):
    """(B, LATENT, 1, 1) -> (B, 1, 32, 32)."""
    c = channels
    return nn.Sequential(
        nn.ConvTranspose2d(LATENT, 4 * c, 4, bias=False), nn.BatchNorm2d(4 * c), nn.ReLU(),
        nn.ConvTranspose2d(4 * c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c), nn.ReLU(),
        nn.ConvTranspose2d(2 * c, c, 4, 2, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
        nn.ConvTranspose2d(c, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


@torch.no_grad()
def distance(generator, held_out):
    """Unbiased MMD^2 to images that were not learned from, as wide as their median distance; about 0 for their like."""
    real = held_out.flatten(1)
    fake = generator(torch.randn(len(real), LATENT, 1, 1, device=real.device)).flatten(1)
    return wk.mmd2(fake, real, wk.kernels.RBF(torch.pdist(real).median().item())).item()


def main():
    options = parse()
    torch.manual_seed(options.seed)
    device, size = options.device, options.batch_size
    images = load_images(options.fashion_mnist).to(device)
    images = images[torch.randperm(len(images), device=device)]
    held_out, images = images[:400], images[400:]
    critic, generator = make_critic(options.channels).to(device), make_generator(options.channels).to(device)
    critic_optimizer = torch.optim.Adam(critic.parameters(), options.lr, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), options.lr, betas=(0.0, 0.9))
    untrained = distance(generator, held_out)
    print("penalty by", *wk.explain_route(critic, images[:size]), sep=": ")

    for step in range(1, options.steps + 1):
        for _ in range(options.critic_steps):
            real = images[torch.randint(len(images), (size,), device=device)]
            fake = generator(torch.randn(size, LATENT, 1, 1, device=device)).detach()
            penalty = wk.gradient_penalty(critic, real, fake)
            critic_loss = critic(fake).mean() - critic(real).mean() + penalty
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()

        generator_loss = -critic(generator(torch.randn(size, LATENT, 1, 1, device=device))).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if step % 25 == 0:
            print(f"step {step}: critic loss {critic_loss.item():.4f}, penalty {penalty.item():.4f}")

    print(f"MMD^2 to held-out images: {distance(generator, held_out):.4f}, untrained: {untrained:.4f}")


if __name__ == "__main__":
    main()
