"""WGAN-GP on a table of numbers and a category, as CTGAN does it: packed samples and dropout in the critic."""

import argparse

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

import wgan_kernels as wk

LATENT, WIDTH, CLASSES = 64, 128, 2


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="generator steps")
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--pac", type=int, default=10, help="rows that the critic judges together")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Critic(nn.Module):
    """(B, columns) -> (B / pac, 1)."""

    def __init__(self, columns, pac):
        super().__init__()
        self.columns = pac * columns
        self.layers = nn.Sequential(
            nn.Linear(self.columns, WIDTH), nn.LeakyReLU(0.2), nn.Dropout(0.5),
            nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.2), nn.Dropout(0.5), nn.Linear(WIDTH, 1),
        )  # fmt: skip

    def forward(self, rows):
        return self.layers(rows.view(-1, self.columns))


class Generator(nn.Module):
    """(B, LATENT) -> (B, columns): numbers, then the category as a softened one-hot vector."""

    def __init__(self, columns):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(LATENT, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(),
            nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, columns),
        )  # fmt: skip

    def forward(self, latents):
        numbers, logits = self.layers(latents).tensor_split([-CLASSES], dim=1)
        return torch.cat([numbers, functional.gumbel_softmax(logits, tau=0.2)], dim=1)


def load_table():
    """Training and held-out rows: 30 standardised numbers and the one-hot category."""
    numbers, category = load_breast_cancer(return_X_y=True)
    numbers = torch.tensor((numbers - numbers.mean(0)) / numbers.std(0), dtype=torch.float32)
    rows = torch.cat([numbers, functional.one_hot(torch.tensor(category), CLASSES)], dim=1)
    return train_test_split(rows, test_size=0.3, random_state=0, stratify=category)


def usefulness(rows, held_out):
    """How well a classifier that was fitted to these rows tells the category of held-out ones."""
    fitted, judged = [(part[:, :-CLASSES].numpy(), part[:, -CLASSES:].argmax(1).numpy()) for part in (rows, held_out)]
    return LogisticRegression(max_iter=1000).fit(*fitted).score(*judged)


@torch.no_grad()
def generate(generator, number, device):
    generator.eval()
    rows = generator(torch.randn(number, LATENT, device=device)).cpu()
    generator.train()
    return rows


def main():
    options = parse()
    torch.manual_seed(options.seed)
    device, size, pac = options.device, options.batch_size, options.pac
    train, held_out = load_table()
    table = train.to(device)
    critic, generator = Critic(table.shape[1], pac).to(device), Generator(table.shape[1]).to(device)
    critic_optimizer = torch.optim.Adam(critic.parameters(), options.lr, betas=(0.5, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), options.lr, betas=(0.5, 0.9))
    untrained = usefulness(generate(generator, len(train), device), held_out)
    print("penalty by", *wk.explain_route(critic, table[:pac], pac=pac), sep=": ")

    for step in range(1, options.steps + 1):
        real = table[torch.randint(len(table), (size,), device=device)]
        fake = generator(torch.randn(size, LATENT, device=device)).detach()
        penalty = wk.gradient_penalty(critic, real, fake, pac=pac)
        critic_loss = critic(fake).mean() - critic(real).mean() + penalty
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()

        generator_loss = -critic(generator(torch.randn(size, LATENT, device=device))).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if step % 250 == 0:
            print(f"step {step}: critic loss {critic_loss.item():.4f}, penalty {penalty.item():.4f}")

    trained = usefulness(generate(generator, len(train), device), held_out)
    print(f"accuracy of a classifier fitted to generated rows: {trained:.1%}, untrained: {untrained:.1%}, "
          f"fitted to real rows: {usefulness(train, held_out):.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
