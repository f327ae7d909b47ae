"""A conditional WGAN-GP on scikit-learn's digits: the label's embedding is joined to the input of both networks."""

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import wgan_kernels as wk

PIXELS, CLASSES, LATENT, WIDTH = 64, 10, 32, 256


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="generator steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--critic-steps", type=int, default=5, help="critic steps per generator step")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Critic(nn.Module):
    """Images (B, 64) and labels (B,) -> scores (B, 1)."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, CLASSES)
        self.layers = nn.Sequential(
            nn.Linear(PIXELS + CLASSES, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.2),
            nn.Linear(WIDTH, 1),
        )  # fmt: skip

    def forward(self, images, labels):
        return self.layers(torch.cat([images, self.embedding(labels)], dim=1))


class Generator(nn.Module):
    """Latents (B, 32) and labels (B,) -> images (B, 64)."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, CLASSES)
        self.layers = nn.Sequential(
            nn.Linear(LATENT + CLASSES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
            nn.Linear(WIDTH, PIXELS), nn.Tanh(),
        )  # fmt: skip

    def forward(self, labels):
        latents = torch.randn(len(labels), LATENT, device=labels.device)
        return self.layers(torch.cat([latents, self.embedding(labels)], dim=1))


@torch.no_grad()
def obedience(generator, judge, device):
    """What part of the generated digits a classifier of real digits reads as the digit that was asked for."""
    labels = torch.arange(CLASSES, device=device).repeat_interleave(100)
    return judge.score(generator(labels).cpu().numpy(), labels.cpu().numpy())


def main():
    options = parse()
    torch.manual_seed(options.seed)
    device, size = options.device, options.batch_size
    digits = load_digits()
    images = (torch.tensor(digits.data, dtype=torch.float32) / 8 - 1).to(device)
    targets = torch.tensor(digits.target).to(device)
    judge = KNeighborsClassifier(3).fit(images.cpu().numpy(), digits.target)
    critic, generator = Critic().to(device), Generator().to(device)
    critic_optimizer = torch.optim.Adam(critic.parameters(), options.lr, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), options.lr, betas=(0.0, 0.9))
    untrained = obedience(generator, judge, device)
    print("penalty by", *wk.explain_route(critic, images[:size], args=(targets[:size],)), sep=": ")

    for step in range(1, options.steps + 1):
        for _ in range(options.critic_steps):
            chosen = torch.randint(len(images), (size,), device=device)
            real, labels = images[chosen], targets[chosen]
            fake = generator(labels).detach()
            penalty = wk.gradient_penalty(critic, real, fake, args=(labels,))
            critic_loss = critic(fake, labels).mean() - critic(real, labels).mean() + penalty
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()

        labels = torch.randint(CLASSES, (size,), device=device)
        generator_loss = -critic(generator(labels), labels).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: critic loss {critic_loss.item():.4f}, penalty {penalty.item():.4f}")

    trained = obedience(generator, judge, device)
    print(f"digits read as the label that was asked for: {trained:.1%}, untrained: {untrained:.1%}")


if __name__ == "__main__":
    main()
