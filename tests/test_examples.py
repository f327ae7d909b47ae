"""The examples, run as scripts, and their penalty against the function that such scripts had in its place."""

from __future__ import annotations

import copy
import gzip
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")

import tolerances  # noqa: E402
import torch  # noqa: E402
from sklearn import datasets  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import wgan_kernels as wk  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"

# Each script with options that make it small, the settings of its penalty, and what it says at last.
CASES = {
    "toy_gaussians": (["--batch-size=32"], {"weight": 0.1}, r"modes found: \d of 8; [\d.]+% of the samples"),
    "dcgan_images": (["--batch-size=8", "--channels=4"], {}, r"MMD\^2 to held-out images: -?[\d.]+, untrained: [\d.]+"),
    "conditional_digits": (["--batch-size=16"], {}, r"digits read as .*: [\d.]+%, untrained: [\d.]+%"),
    "resnet_layer_norm": (
        ["--batch-size=8", "--channels=4"],
        {},
        r"MMD\^2 to held-out .*: -?[\d.]+, untrained: [\d.]+",
    ),
    "tabular_pac": (["--batch-size=40", "--pac=4"], {"pac": 4}, r"accuracy .*: [\d.]+%, untrained: [\d.]+%, fitted"),
}


def written_by_hand(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    mix: Tensor,
    labels: tuple[Tensor, ...],
    weight: float = 10.0,
    pac: int = 1,
) -> Tensor:
    """The penalty as scripts write it; real, fake: (B, ...), mix: (B / pac,), labels: none or (B,)."""
    eps = mix.repeat_interleave(pac).reshape(-1, *[1] * (real.dim() - 1))
    mixed = (eps * real + (1 - eps) * fake).requires_grad_()
    scores = critic(mixed, *labels)
    (gradient,) = torch.autograd.grad(scores, mixed, torch.ones_like(scores), create_graph=True)
    norms = gradient.reshape(len(mix), -1).norm(2, dim=1)
    return weight * ((norms - 1) ** 2).mean()


class FirstCall:
    """gradient_penalty, which keeps what it is given first, in float64."""

    def __init__(self) -> None:
        self.penalty = wk.gradient_penalty
        self.number = 0

    def __call__(self, critic: nn.Module, real: Tensor, fake: Tensor, **settings: Any) -> Tensor:
        if self.number == 0:
            self.critic = copy.deepcopy(critic).double()
            self.real, self.fake, self.settings = real.double(), fake.double(), settings
        self.number += 1
        return self.penalty(critic, real, fake, **settings)


def run(monkeypatch: pytest.MonkeyPatch, name: str, *options: str) -> FirstCall:
    call = FirstCall()
    monkeypatch.setattr(wk, "gradient_penalty", call)
    monkeypatch.setattr(sys, "argv", [name, *options])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return call


def labels_of(digits: Tensor) -> Tensor:
    """What the dataset says that these images (B, P) show."""
    everything = datasets.load_digits()
    images = torch.tensor(everything.data) / 8 - 1
    return torch.tensor(everything.target)[torch.cdist(digits, images).argmin(dim=1)]


def with_gradients(penalty: Callable[[], Tensor], critic: nn.Module) -> list[Tensor]:
    """The value and its gradients by all parameters, 0 where there is none; dropout is the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        value = penalty()
    parameters = list(critic.parameters())
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    found = [torch.zeros_like(p) if grad is None else grad for p, grad in zip(parameters, gradients, strict=True)]
    return [value.detach(), *found]


def test_every_example_is_tried() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_example(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options, settings, figure = CASES[name]
    with torch.random.fork_rng():
        call = run(monkeypatch, name, "--steps=2", *options)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("penalty by: closed_form: ")
    assert re.match(figure, last)
    assert call.number == 2 * (1 if name == "tabular_pac" else 5)

    mix = torch.rand(len(call.real) // settings.get("pac", 1), dtype=torch.float64)
    labels = (labels_of(call.real),) if name == "conditional_digits" else ()
    batch = call.critic, call.real, call.fake
    library = with_gradients(lambda: call.penalty(*batch, mix=mix, **call.settings), call.critic)
    expected = with_gradients(lambda: written_by_hand(*batch, mix, labels, **settings), call.critic)
    largest = max(1.0, *(part.abs().max().item() for part in expected))
    for ours, theirs in zip(library, expected, strict=True):
        assert (ours - theirs).abs().max().item() <= tolerances.EAGER_FLOAT64 * largest
    assert expected[0] > 0 and any(part.any() for part in expected[1:])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_dcgan_reads_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    number, side = 420, 28
    header = b"".join(value.to_bytes(4, "big") for value in (0x803, number, side, side))
    pixels = (torch.arange(number * side * side) % 256).to(torch.uint8).numpy().tobytes()
    content = header + pixels
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with torch.random.fork_rng():
        options = ("--steps=1", "--critic-steps=1", "--batch-size=4", "--channels=2", f"--fashion-mnist={tmp_path}")
        call = run(monkeypatch, "dcgan_images", *options)
    assert call.real.shape == (4, 1, 32, 32)
    assert -1 <= call.real.min() < -0.5 and 0.5 < call.real.max() <= 1
