"""Every objective of the trainer: as its paper has it, and as its twin in plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import pytest
from trainer_runs import checked, keep_threads, small  # noqa: F401

pytest.importorskip("jsonargparse")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import wgan_kernels as wk  # noqa: E402
from wgan_kernels import _backend  # noqa: E402
from wgan_kernels.trainer.data import Judge  # noqa: E402
from wgan_kernels.trainer.loop import Training  # noqa: E402
from wgan_kernels.trainer.objectives import OBJECTIVES, make_objective  # noqa: E402
from wgan_kernels.trainer.objectives.base import Batch  # noqa: E402
from wgan_kernels.trainer.twin import TOLERANCE, VerificationError  # noqa: E402


def losses(training: Training, steps: int) -> Tensor:
    return torch.tensor([list(training.step().values()) for _ in range(steps)], dtype=torch.float64)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_trainers_stay_together(name: str, backend: str) -> None:
    """Library and plain twin, from one seed: the same figures and the same weights after some steps."""
    library, plain = (small("--objective", name, plain=plain) for plain in (False, True))
    assert type(library.objective) is not type(plain.objective)
    torch.testing.assert_close(losses(library, 4), losses(plain, 4), rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(library.networks.parameters(), plain.networks.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_and_is_checked(name: str) -> None:
    training = small("--objective", name, "--batch-size", "32", "--lr", "2e-3", dtype=torch.float32)
    judge = Judge(training.data)
    untrained = judge.mmd2(training.evaluation_samples())
    verifier = checked(training, 2)
    assert verifier.checks == 2 * len(training.updates)
    assert verifier.worst.loss <= TOLERANCE and verifier.worst.gradient <= TOLERANCE
    assert 0 < verifier.worst.float32_loss < 1e-4
    losses(training, 25)
    assert judge.mmd2(training.evaluation_samples()) < 0.97 * untrained


@pytest.mark.parametrize("name", OBJECTIVES)
def test_defaults_of_the_papers(name: str) -> None:
    objective = make_objective(small("--objective", name, "--batch-size", "64").config)
    defaults = OBJECTIVES[name][0]()
    adam = {"gan": (2e-4, 0.5, 0.999), "nsgan": (2e-4, 0.5, 0.999), "wgan-gp": (1e-4, 0.0, 0.9),
            "mmd-gan": (1e-4, 0.5, 0.9), "wae-mmd": (1e-3, 0.5, 0.999), "wae-gan": (1e-3, 0.5, 0.999)}  # fmt: skip
    if name in adam:
        assert (defaults.lr, *defaults.betas) == adam[name]
    others = {"wgan": {"lr": 5e-5, "clip": 0.01}, "wgan-gp": {"penalty_weight": 10.0}, "mmd-gan": {"penalty_weight": 1},
              "wae-mmd": {"penalty_weight": 10.0, "batch_size": 100, "latent": 8, "kernel_scale": 1.0}}  # fmt: skip
    assert all(getattr(defaults, key) == value for key, value in others.get(name, {}).items())
    assert getattr(defaults, "critic_steps", 1) == (5 if name in ("wgan", "wgan-gp", "mmd-gan") else 1)
    assert objective.batch_size == 64


def test_wgan_is_algorithm_1() -> None:
    """Signs, order and sizes of all updates, by a loop that is written down here from the paper."""
    training = small("--objective", "wgan", "--batch-size", "16", "--lr", "1e-3", "--clip", "0.05")
    by_hand = small("--objective", "wgan", "--batch-size", "16")
    critic, generator, random = by_hand.networks.critic, by_hand.networks.generator, by_hand.random
    squares: dict[nn.Parameter, Tensor] = {}

    def rmsprop(param: nn.Parameter, grad: Tensor) -> Tensor:
        squares[param] = 0.99 * squares.get(param, torch.zeros_like(param)) + 0.01 * grad**2
        return grad / (squares[param].sqrt() + 1e-8)

    data = by_hand.data.train.double()
    for _ in range(3):
        for _ in range(5):
            real = data[torch.randint(len(data), (16,), generator=random)]
            z = torch.randn(16, 32, generator=random).double()
            value = critic(real).mean() - critic(generator(z)).mean()
            grads = torch.autograd.grad(value, list(critic.parameters()))
            with torch.no_grad():
                for w, grad in zip(critic.parameters(), grads):
                    w.add_(1e-3 * rmsprop(w, grad)).clamp_(-0.05, 0.05)
        z = torch.randn(16, 32, generator=random).double()
        grads = torch.autograd.grad(-critic(generator(z)).mean(), list(generator.parameters()))
        with torch.no_grad():
            for theta, grad in zip(generator.parameters(), grads):
                theta.sub_(1e-3 * rmsprop(theta, grad))
        training.step()
    assert all(param.abs().max() <= 0.05 for param in training.networks.critic.parameters())
    for ours, theirs in zip(training.networks.parameters(), by_hand.networks.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_values_of_the_game_at_equality() -> None:
    """A discriminator that says 1/2: 2 JS - 2 log 2 = -2 loss with JS = 0; label smoothing moves the best D to 0.45."""
    half = nn.Sequential(nn.Linear(2, 1))
    nn.init.zeros_(half[0].weight), nn.init.zeros_(half[0].bias)
    x = torch.randn(6, 2)
    for name in ("gan", "nsgan"):
        objective = OBJECTIVES[name][0]()
        terms = objective.critic_terms(half, x, x, None)
        assert terms["loss"].item() == pytest.approx(math.log(2)) and abs(terms["jensen_shannon"].item()) < 1e-6
        sign = -1 if name == "gan" else 1
        assert objective.generator_terms(half, x, None)["loss"].item() == pytest.approx(sign * math.log(2) / 2)
    smooth = OBJECTIVES["gan"][0](label_smoothing=0.1)
    nn.init.constant_(half[0].bias, math.log(0.45 / 0.55))
    (grad,) = torch.autograd.grad(smooth.critic_terms(half, x, x, None)["loss"], half[0].bias)
    assert grad.abs().item() < 1e-7


def test_mmd_gan_compares_features_by_rational_quadratic_and_linear_kernels() -> None:
    training = small("--objective", "mmd-gan")
    draws = training.draw(training.updates[1])
    with torch.no_grad():
        fake = training.generator(draws.latent)
        terms = training.objective.generator_terms(training.networks.critic, fake, draws.real)
        phi_x, phi_y = training.networks.critic(draws.real), training.networks.critic(fake)

    def k(x: Tensor, y: Tensor) -> Tensor:
        square = torch.cdist(x, y).square()
        return sum((1 + square / (2 * alpha)) ** -alpha for alpha in (0.2, 0.5, 1.0, 2.0, 5.0)) + 10 * x @ y.T

    n = len(phi_x)
    others = ~torch.eye(n, dtype=torch.bool)
    mmd2 = (k(phi_x, phi_x) + k(phi_y, phi_y))[others].sum() / (n * (n - 1)) - 2 * k(phi_x, phi_y).mean()
    torch.testing.assert_close(terms["loss"], mmd2, rtol=1e-9, atol=1e-12)
    assert terms["size"] >= max(k(phi_x, phi_x).diag().mean(), k(phi_y, phi_y).diag().mean()) > 5


@pytest.mark.parametrize(("options", "scale"), [((), 16.0), (("--kernel-scale", "0.5", "--latent", "3"), 3.0)])
def test_wae_mmd_is_algorithm_2(options: tuple[str, ...], scale: float) -> None:
    training = small("--objective", "wae-mmd", "--penalty-weight", "7", *options)
    draws, networks = training.draw(training.updates[0]), training.networks
    with torch.no_grad():
        terms = training.objective.loss(networks, draws)
        codes = networks.encoder(draws.real)
        cost = (draws.real - networks.generator(codes)).square().sum() / 8

    def k(x: Tensor, y: Tensor) -> Tensor:
        return scale / (scale + torch.cdist(x, y).square())

    others = ~torch.eye(8, dtype=torch.bool)
    mmd2 = (k(draws.latent, draws.latent) + k(codes, codes))[others].sum() / (8 * 7) - 2 * k(draws.latent, codes).mean()
    torch.testing.assert_close(terms["loss"], cost + 7 * mmd2, rtol=TOLERANCE, atol=0)


def test_feature_matching() -> None:
    training = small("--objective", "nsgan", "--feature-matching")
    critic, update = training.networks.critic, training.updates[1]
    assert set(update.draws) == {"latent", "real"}
    batch = training.draw(update)
    fake = training.networks.generator(batch.latent)
    apart = critic[:-1](batch.real).mean(0) - critic[:-1](fake).mean(0)
    torch.testing.assert_close(update.loss(training.networks, batch)["loss"], apart.square().sum())
    assert checked(small("--objective", "wgan-gp", "--feature-matching", dtype=torch.float32), 1).checks == 2


@pytest.mark.parametrize("name", ["gan", "nsgan", "wgan"])
def test_minibatch_discrimination(name: str) -> None:
    """The critic's features and how near they are to the others of the batch; real and generated batches apart."""
    training = small("--objective", name, "--minibatch-discrimination", "--critic-steps", "1", dtype=torch.float32)
    critic = training.networks.critic
    x = training.data.train[:6]
    features = critic[:-2](x)
    products = torch.einsum("bi,ifk->bfk", features, critic[-2].weight)
    distances = (products.unsqueeze(1) - products.unsqueeze(0)).abs().sum(3)
    closeness = (-distances).exp().sum(1) - 1
    torch.testing.assert_close(critic(x), critic[-1](torch.cat([features, closeness], 1)))
    assert checked(training, 2).checks == 4


def test_instance_noise_falls_to_nothing() -> None:
    training = small("--objective", "gan", "--instance-noise", "0.5", "--steps", "10")
    update = training.updates[0]
    batch = training.draw(update)
    assert batch.noise.shape == (2, 8, 64) and 0.4 < batch.noise.std() < 0.6
    with torch.no_grad():
        fake = training.networks.generator(batch.latent)
    noisy = Batch(real=batch.real + batch.noise[0], latent=batch.latent)
    seen = training.objective.critic_terms(training.networks.critic, noisy.real, fake + batch.noise[1], None)
    assert update.loss(training.networks, batch)["loss"] == seen["loss"]
    training.step_count = 9
    assert 0.04 < training.draw(update).noise.std() < 0.06
    assert checked(training, 1).checks == 2


def test_historical_averaging() -> None:
    """After one step without it, as the mean of the past is then the present, it pulls towards the mean."""
    weight = 0.3
    with_it, without = (small("--objective", "wae-mmd", "--historical-averaging", each) for each in (str(weight), "0"))
    past: list[list[Tensor]] = []
    for _ in range(2):
        for training in (with_it, without):
            training.step()
        past.append([param.detach().clone() for param in with_it.networks.parameters()])
        without.load_state_dict({**with_it.state_dict()})
    means = [torch.stack(each).mean(0) for each in zip(*past, strict=True)]
    update = with_it.updates[0]
    batch = with_it.draw(update)
    for training in (with_it, without):
        training.descend(update, training.loss(update, batch)["loss"])
    pairs = zip(with_it.networks.parameters(), without.networks.parameters(), past[-1], means, strict=True)
    for pulled, free, theta, mean in pairs:
        torch.testing.assert_close(pulled.grad - free.grad, 2 * weight * (theta - mean))


def test_the_averaged_generator_makes_the_samples() -> None:
    training = small("--ema", "0.75")
    training.step()
    first = [param.detach().clone() for param in training.generator.parameters()]
    training.step()
    for average, one, two in zip(training.average.parameters(), first, training.generator.parameters(), strict=True):
        torch.testing.assert_close(average, 0.75 * one + 0.25 * two)
    with torch.no_grad():
        expected = training.average(training.evaluation_latents).float()
    assert torch.equal(training.evaluation_samples(), expected)


def test_evaluation_leaves_no_trace() -> None:
    training = small("--architecture", "dcgan", "--width", "4", "--critic-steps", "1")
    training.step()
    before = {name: value.clone() for name, value in training.generator.state_dict().items()}
    assert torch.equal(training.evaluation_samples(), training.evaluation_samples())
    assert training.generator.training
    assert all(torch.equal(before[name], value) for name, value in training.generator.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("LayerNorm", ("--architecture", "dcgan-layer-norm", "--width", "4")),
        ("MinibatchDiscrimination", ("--objective", "wgan", "--minibatch-discrimination")),
    ],
)
def test_layers_of_the_library_are_checked_too(monkeypatch: pytest.MonkeyPatch, layer: str, options: Any) -> None:
    """One that is wrong where the compiled library serves it, and right on the reference back end."""
    monkeypatch.setattr(getattr(wk.nn, layer), "forward", wrong_but_on_the_reference(getattr(wk.nn, layer).forward))
    training = small(*options, "--critic-steps", "1", dtype=torch.float32)
    with wk.use_backend("auto"), pytest.raises(VerificationError):
        checked(training, 1)


def wrong_but_on_the_reference(right: Any) -> Any:
    return lambda *args: right(*args) * (1 if _backend._current == "reference" else 1 + 1e-6)


@pytest.mark.parametrize("name", ["mmd-gan", "wae-mmd"])
def test_discrepancies_are_checked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(wk, "mmd2", wrong_but_on_the_reference(wk.mmd2))
    with wk.use_backend("auto"), pytest.raises(VerificationError):
        checked(small("--objective", name, dtype=torch.float32), 1)
