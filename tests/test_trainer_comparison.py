"""The trainer's networks, and its runs beside those on plain PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

import torch  # noqa: E402
from test_trainer import keep_threads, run  # noqa: E402, F401

import wgan_kernels as wk  # noqa: E402
from wgan_kernels.trainer import networks  # noqa: E402
from wgan_kernels.trainer.__main__ import main  # noqa: E402
from wgan_kernels.trainer.comparison import compare  # noqa: E402
from wgan_kernels.trainer.config import parse  # noqa: E402
from wgan_kernels.trainer.data import load_digits  # noqa: E402
from wgan_kernels.trainer.interrupt import Interrupt  # noqa: E402
from wgan_kernels.trainer.loop import Training  # noqa: E402
from wgan_kernels.trainer.objectives.wgan_gp import WGANGP  # noqa: E402

DCGANS = ("dcgan", "dcgan-layer-norm")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "CHANNELS", 4)


@pytest.mark.parametrize("architecture", DCGANS)
def test_convolutions_learn_checked_and_come_back(tmp_path: Path, architecture: str, small: None) -> None:
    status, metrics, checkpoint = run(
        tmp_path, "--architecture", architecture, "--steps", "12", "--batch-size", "32", "--lr", "2e-3", "--verify", "6"
    )
    assert status == 0 and metrics["verification"]["checks"] == 2
    assert metrics["mmd2"]["generated"] < 0.9 * metrics["mmd2"]["untrained"]
    generator = networks.ARCHITECTURES[architecture].make_generator(16)
    generator.load_state_dict(checkpoint["generator"])
    with torch.no_grad():
        samples = generator.eval()(checkpoint["evaluation_latents"])
    again = wk.mmd2(samples, load_digits(16).held_out, wk.kernels.RBF(metrics["bandwidth"])).item()
    assert again == metrics["mmd2"]["generated"]


@pytest.mark.parametrize("side", [8, 16, 64])
def test_dcgan_layers(side: int) -> None:
    """Halvings down to 4x4 and up again, whatever the side; normalisation where the design of DCGAN has it."""
    halvings = {8: 1, 16: 2, 64: 4}[side]
    critic, generator = networks.dcgan_critic(side, layer_norm=True), networks.dcgan_generator(side)
    fake = generator(torch.randn(3, networks.LATENT))
    assert fake.shape == (3, side * side) and fake.abs().max() <= 1
    assert critic(fake).shape == networks.dcgan_critic(side)(fake).shape == (3, 1)
    count = {kind: sum(type(m) is kind for m in (*critic, *generator)) for kind in
             (torch.nn.LayerNorm, torch.nn.BatchNorm2d, torch.nn.Conv2d, torch.nn.ConvTranspose2d)}  # fmt: skip
    assert list(count.values()) == [halvings - 1, halvings, halvings + 1, halvings + 1]
    assert wk.check_critic(critic, fake.detach()) == []


@pytest.mark.parametrize("side", [4, 12, 28])
def test_dcgan_refuses_other_sides(side: int) -> None:
    with pytest.raises(ValueError, match=f"side must be a power of 2, 8 or more, got {side}"):
        networks.dcgan_critic(side)


def test_evaluation_leaves_no_trace(small: None) -> None:
    training = Training(parse(["--architecture", "dcgan", "--batch-size", "8"]), load_digits(16), WGANGP())
    training.step()
    before = {name: value.clone() for name, value in training.generator.state_dict().items()}
    assert torch.equal(training.evaluation_samples(), training.evaluation_samples())
    assert training.generator.training
    assert all(torch.equal(before[name], value) for name, value in training.generator.state_dict().items())


@pytest.mark.parametrize(
    ("backend", "architecture"), [("auto", "mlp"), ("reference", "mlp"), *[("auto", name) for name in DCGANS]]
)
def test_comparison_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str, architecture: str, small: None
) -> None:
    options = ["--steps", "4", "--batch-size", "16", "--backend", backend, "--architecture", architecture]
    assert main(["--out", str(tmp_path), *options]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    comparison = metrics["comparison"]
    assert comparison["library"] > 0 and comparison["plain"] > 0
    assert comparison["curve_steps"] == 4 and comparison["curve_difference"] < 1e-12
    assert comparison["curve_difference_float32"] < 0.1
    native = backend == "auto" and wk.build_info()["native"]
    assert metrics["backend"].startswith("native" if native else "reference")
    output = capsys.readouterr().out
    assert f"this library ({'native' if native else 'reference'}" in output
    assert f"wgan-gp ({architecture})" in output and "the same over 4 steps" in output


@pytest.mark.parametrize("wrong", [1 + 1e-6, float("nan")])
def test_another_loss_curve_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: float
) -> None:
    """In the comparison alone: the run itself goes well."""
    right = wk.wasserstein_critic_loss

    def critic_loss(critic: Any, real: torch.Tensor, *args: Any, **settings: Any) -> Any:
        _, wasserstein, penalty, norms = right(critic, real, *args, **settings)
        if real.dtype == torch.float64:
            penalty = wrong * penalty
        return penalty - wasserstein, wasserstein, penalty, norms

    monkeypatch.setattr(wk, "wasserstein_critic_loss", critic_loss)
    assert main(["--out", str(tmp_path), "--steps", "2", "--verify", "0"]) == 1
    assert "loss curves   DIFFERENT over 2 steps" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["outcome"] == "finished"
    assert (metrics["comparison"]["curve_difference"] is None) == (wrong != wrong)


def test_an_interrupted_comparison_ends() -> None:
    interrupt = Interrupt()
    interrupt.requested = True
    assert compare(parse([]), load_digits(), interrupt) is None
