"""One-hot letters against a generator's softmax: a GAN of text without gradients through the choice of a letter.

Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", section 5.5; the blocks and the divergences of
n-grams are as in that paper's code. The text is the language reference that comes with Python, which help() shows.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pydoc_data.topics import topics
from typing import Any

import torch
from matplotlib.figure import Figure
from scipy.spatial.distance import jensenshannon
from torch import Tensor, nn

from ..config import Config
from ..data import Data
from ..loop import Training
from ..networks import Sizes
from .critics import objective
from .experiment import Experiment, Found
from .runs import curves, with_networks

LETTERS = " abcdefghijklmnopqrstuvwxyz.,"
HELD_OUT = 0.2
ORDERS = (1, 2, 3, 4)  # of n-grams
SHOWN = 16


@dataclass(frozen=True)
class Settings:
    length: int = 16  # letters of a sample
    width: int = 64
    blocks: int = 1
    steps: int = 2000
    every: int = 100
    lr: float = 5e-4
    seed: int = 0


def plain_text() -> str:
    """Words, commas and full stops; everything else is a space."""
    return " ".join(re.sub(rf"[^{LETTERS}]", " ", "\n".join(topics.values()).lower()).split())


def one_hot(text: str, length: int) -> Tensor:
    """All pieces of this length that begin half a length apart, (N, letters * length): each letter's row, in order."""
    codes = torch.tensor([LETTERS.index(letter) for letter in text]).unfold(0, length, max(length // 2, 1))
    return nn.functional.one_hot(codes, len(LETTERS)).float().mT.flatten(1)


def load_text(length: int) -> Data:
    text = plain_text()
    border = round((1 - HELD_OUT) * len(text))
    return Data(one_hot(text[:border], length), one_hot(text[border:], length), (len(LETTERS), length))


class Block(nn.Module):
    """x + 0.3 conv(relu(conv(relu(x)))), as in that paper's code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv1d(width, width, 5, padding=2) for _ in range(2)]
        self.layers = nn.Sequential(nn.ReLU(), convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * self.layers(x)


def text_critic(sizes: Sizes, outputs: int, blocks: int) -> nn.Sequential:
    letters, length = sizes.shape
    return nn.Sequential(nn.Unflatten(1, sizes.shape), nn.Conv1d(letters, sizes.width, 1),
                         *[Block(sizes.width) for _ in range(blocks)],
                         nn.Flatten(), nn.Linear(sizes.width * length, outputs))  # fmt: skip


def text_generator(sizes: Sizes, blocks: int) -> nn.Sequential:
    letters, length = sizes.shape
    return nn.Sequential(nn.Linear(sizes.latent, sizes.width * length), nn.Unflatten(1, (sizes.width, length)),
                         *[Block(sizes.width) for _ in range(blocks)],
                         nn.Conv1d(sizes.width, letters, 1), nn.Softmax(dim=1), nn.Flatten())  # fmt: skip


def spelt(samples: Tensor, length: int) -> list[str]:
    """The likeliest letter in every place of samples (N, letters * length)."""
    return ["".join(LETTERS[letter] for letter in row) for row in samples.unflatten(1, (-1, length)).argmax(1).tolist()]


def divergence(order: int, texts: list[str], others: list[str]) -> float:
    """JS of the frequencies of n-grams, in nats: 0 to log 2."""
    ours, theirs = (
        Counter(text[place : place + order] for text in each for place in range(len(text) - order + 1))
        for each in (texts, others)
    )
    grams = list(ours | theirs)
    return float(jensenshannon(*[[counts[gram] for gram in grams] for counts in (ours, theirs)]) ** 2)


def judged(texts: list[str], held_out: list[str], vocabulary: set[str]) -> dict[str, float]:
    """Divergences of n-grams from held-out text, and how many whole words of 3 letters or more are known."""
    found = {f"js of {order}-grams": divergence(order, texts, held_out) for order in ORDERS}
    words = [word for text in texts for word in text.split(" ")[1:-1] if len(word) > 2]
    return found | {"share of known words": sum(word in vocabulary for word in words) / max(len(words), 1)}


def independent(samples: Tensor, length: int, number: int, seed: int) -> list[str]:
    """Text of letters that are as frequent as in the samples and know nothing of each other."""
    frequencies = samples.unflatten(1, (-1, length)).sum((0, 2))
    random = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(frequencies, number * length, replacement=True, generator=random)
    return ["".join(LETTERS[letter] for letter in row) for row in drawn.unflatten(0, (number, length)).tolist()]


def run(settings: Settings) -> Found:
    data, everything = load_text(settings.length), plain_text()
    held_out, vocabulary = spelt(data.held_out, settings.length), set(everything.split(" "))
    how = with_networks(objective("wgan-gp", lr=settings.lr),
                        make_critic=partial(text_critic, blocks=settings.blocks),
                        make_generator=partial(text_generator, blocks=settings.blocks))  # fmt: skip
    training = Training(Config(objective=how.name, width=settings.width, seed=settings.seed), data, how)

    def texts() -> list[str]:
        return spelt(training.evaluation_samples(), settings.length)

    found = curves(training, settings.steps, settings.every, lambda: judged(texts(), held_out, vocabulary))
    number = len(texts())
    known = spelt(data.train[:: max(len(data.train) // number, 1)], settings.length)
    names = ("step", "wasserstein", *judged(known, held_out, vocabulary))
    numbers = {
        "along the run": {name: found[name] for name in names},
        "at the end": judged(texts(), held_out, vocabulary),
        "training text": judged(known, held_out, vocabulary),
        "independent letters": judged(
            independent(data.train, settings.length, number, settings.seed), held_out, vocabulary
        ),
        "share of samples that stand in the text": sum(text in everything for text in texts()) / number,
        "samples": texts()[:SHOWN],
        "pieces of the text": held_out[:: len(held_out) // SHOWN][:SHOWN],
    }
    return Found(numbers, partial(draw, numbers), (12, 4.2))


def draw(numbers: dict[str, Any], figure: Figure) -> None:
    losses, divergences, letters = figure.subplots(1, 3, width_ratios=(1, 1.2, 1.2))
    along = numbers["along the run"]
    losses.plot(along["step"], along["wasserstein"])
    losses.set(title="the critic's estimate", xlabel="generator steps", ylim=(0, None))
    for number, order in enumerate(ORDERS):
        name = f"js of {order}-grams"
        divergences.plot(along["step"], along[name], f"C{number}", label=f"n = {order}")
        divergences.axhline(numbers["independent letters"][name], color=f"C{number}", linestyle=":", linewidth=1)
    divergences.set(title="JS of n-grams to held-out text\n(dotted: independent letters)", xlabel="generator steps")
    divergences.set(ylabel="nats", ylim=(-0.02, 0.85))
    divergences.legend(frameon=False, ncols=2)
    for axes in (losses, divergences):
        axes.grid(alpha=0.3)
    letters.axis("off")
    for place, name in ((0.04, "samples"), (0.56, "pieces of the text")):
        shown = "\n".join(text.replace(" ", "·") for text in numbers[name])
        letters.text(place, 1, f"{name}\n\n{shown}", va="top", family="monospace", fontsize=10)


EXPERIMENT = Experiment("text", "Does a penalised critic teach letters, through which no gradient goes?", Settings, run)
