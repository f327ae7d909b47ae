"""WGAN-GP on eight Gaussians in the plane: do all eight modes come out?"""

import argparse
import math

import torch
from torch import nn

import wgan_kernels as wk

LATENT, WIDTH = 2, 256
RADIUS, SIGMA = 2.0, 0.1


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="generator steps")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--critic-steps", type=int, default=5, help="critic steps per generator step")
    parser.add_argument("--lr", type=float, default=5e-4, help="learning rate at the start; it falls linearly to 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def centres(device):
    angles = torch.arange(8, device=device) * (math.tau / 8)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)  # (8, 2)


def sample_data(number, device):
    modes = torch.randint(8, (number,), device=device)
    return centres(device)[modes] + SIGMA * torch.randn(number, 2, device=device)  # (B, 2)


def make_critic():
    return nn.Sequential(
        nn.Linear(2, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, 1),
    )  # fmt: skip


def make_generator():
    return nn.Sequential(
        nn.Linear(LATENT, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, 2),
    )  # fmt: skip


def modes_found(samples):
    """How many modes have a hundredth of the samples or more within 4 sigma, and what part of all samples is there."""
    distances, nearest = torch.cdist(samples, centres(samples.device)).min(dim=1)
    near = distances < 4 * SIGMA
    counts = torch.bincount(nearest[near], minlength=8)
    return int((counts >= 0.01 * len(samples)).sum()), near.float().mean().item()


def main():
    options = parse()
    torch.manual_seed(options.seed)
    device, size = options.device, options.batch_size
    critic, generator = make_critic().to(device), make_generator().to(device)
    critic_optimizer = torch.optim.Adam(critic.parameters(), options.lr, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), options.lr, betas=(0.0, 0.9))
    schedules = [
        torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, options.steps)
        for optimizer in (critic_optimizer, generator_optimizer)
    ]
    print("penalty by", *wk.explain_route(critic, sample_data(size, device)), sep=": ")

    for step in range(1, options.steps + 1):
        for _ in range(options.critic_steps):
            real = sample_data(size, device)
            fake = generator(torch.randn(size, LATENT, device=device)).detach()
            penalty = wk.gradient_penalty(critic, real, fake, weight=0.1)
            critic_loss = critic(fake).mean() - critic(real).mean() + penalty
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()

        generator_loss = -critic(generator(torch.randn(size, LATENT, device=device))).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        for schedule in schedules:
            schedule.step()
        if step % 100 == 0:
            print(f"step {step}: critic loss {critic_loss.item():.4f}, penalty {penalty.item():.4f}")

    with torch.no_grad():
        found, share = modes_found(generator(torch.randn(10_000, LATENT, device=device)))
    print(f"modes found: {found} of 8; {share:.1%} of the samples lie within 4 sigma of one")


if __name__ == "__main__":
    main()
