"""The experiments that follow whole trainings: what they measure, of known values, and small runs of each."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from trainer_runs import keep_threads, run_experiment, small  # noqa: F401

from wgan_kernels.trainer.experiments import generators, loss_and_quality, optimisers, overfitting, text
from wgan_kernels.trainer.experiments.critics import objective
from wgan_kernels.trainer.experiments.runs import curves
from wgan_kernels.trainer.networks import Sizes
from wgan_kernels.trainer.objectives.wgan_gp import WGANGP


def test_curves_are_of_means_between_looks() -> None:
    looks = iter(range(10))
    found = curves(small("--objective", "wgan"), 7, 3, lambda: {"look": next(looks)})
    twin = small("--objective", "wgan")
    losses = torch.tensor([list(twin.step().values()) for _ in range(6)], dtype=torch.float64)
    assert found["step"] == [3, 6] and found["look"] == [0, 1] and next(looks) == 2
    assert found["critic_loss"] == pytest.approx([losses[:3, 0].mean().item(), losses[3:, 0].mean().item()])


def test_ranks_of_losses_and_quality() -> None:
    quality = [4.0, 3.0, 2.0, 1.0]
    found = {"step": [1, 2, 3, 4], "estimate": [40.0, 9.0, 8.0, 7.0], "generator_loss": [1.0, 2.0, 4.0, 3.0]}
    ranks = loss_and_quality.correlations({**found, "mmd2": quality, "p_value": [0.5] * 4})
    assert ranks["estimate and mmd2"] == pytest.approx({"all": 1, "first half": 1, "second half": 1})
    assert ranks["generator_loss and mmd2"] == pytest.approx({"all": -0.8, "first half": -1, "second half": 1})
    assert all(map(math.isnan, ranks["estimate and p_value"].values()))


def test_loss_and_quality(tmp_path: Path) -> None:
    found = run_experiment(tmp_path, "loss-and-quality", steps=240, every=20, permutations=20)
    for name in loss_and_quality.ESTIMATES:
        assert found[name]["step"] == list(range(20, 241, 20)) and len(found[name]["estimate"]) == 12
        assert all(0.047619 <= value <= 1 for value in found[name]["p_value"])
    assert found["wgan-gp"]["last mmd2"] < found["wgan-gp"]["mmd2"][0] / 4
    assert found["wgan-gp"]["rank correlation"]["estimate and mmd2"]["second half"] > 0.8


def test_digits_that_are_kept_and_held_out() -> None:
    data = overfitting.few_digits(overfitting.Settings(digits=100))
    assert len(data.train) == 100 and len(torch.cat([data.train, data.held_out])) == 1797
    assert torch.cdist(data.train, data.held_out).min() > 0


def test_a_critic_learns_few_digits_by_heart(tmp_path: Path) -> None:
    sizes = {"digits": 100, "steps": 400, "every": 10, "width": 128}
    found = run_experiment(tmp_path, "overfitting", penalised_lr=1e-3, **sizes)
    first, *_, last = found["wgan-gp"]["held out / train, by tenths of the run"]
    assert last < 0.6 < 0.9 < first < 1.1


@pytest.mark.parametrize("name", optimisers.BETAS)
def test_optimisers_of_critics(name: str) -> None:
    cosines: list[float] = []
    param = nn.Parameter(torch.tensor([0.005, 0.0]))
    how = optimisers.with_optimizer(objective("wgan"), name, 1e-4, cosines)
    optimizer = how.optimizer("critic", [param])
    for gradient in [-1.0] * 20 + [1.0] * 3 + [-1.0] * 200:
        param.grad = torch.tensor([gradient, 0.0])
        optimizer.step()
    assert param[0].item() == pytest.approx(0.01)  # the bound
    momentum = name.endswith("0.9")
    assert [round(cosine) for cosine in cosines[17:24]] == ([1, 1, 1, -1, -1, -1, 1] if momentum else [1] * 7)[
        : len(cosines)
    ]
    assert len(cosines) == (0 if name == "RMSProp" else 223)
    assert type(how.optimizer("generator", [param])) is type(objective("wgan").optimizer("generator", [param]))


@pytest.mark.filterwarnings("ignore:critic holds BatchNorm1d")
def test_batches_that_are_normalised_together_and_apart() -> None:
    real = torch.randn(16, 4)
    mix = torch.rand(16)
    normalised = optimisers.normalised_critic(Sizes((4,), 1, 32, False), 1)
    plain = nn.Sequential(*[layer for layer in normalised if not isinstance(layer, nn.BatchNorm1d)])
    together, apart = optimisers.OneBatch(), WGANGP()
    value = {how: how.critic_terms(normalised, real, real + 5, mix)["wasserstein"].abs() for how in (together, apart)}
    assert value[apart] < 1e-5 < 1e-2 < value[together]  # a shift of all that is generated
    for how in (together, apart):
        assert how.critic_terms(plain, real, real + 5, mix)["loss"].item() == pytest.approx(
            together.critic_terms(plain, real, real + 5, mix)["loss"].item()
        )
    found = together.generator_terms(plain, real + 5, real)["loss"].item()
    assert found == pytest.approx(-plain(real + 5).mean().item())


def test_optimisers(tmp_path: Path) -> None:
    sizes = {"rates": (1e-3,), "steps": 40, "normalised_steps": 60, "normalised_seeds": 1, "every": 10}
    found = run_experiment(tmp_path, "optimisers", **sizes)
    for critic in optimisers.CRITICS:
        for name, (measures,) in ((name, each.values()) for name, each in found[critic].items()):
            assert len(measures["mmd2"]) == 4 and ("mean cosine" in measures) == (name != "RMSProp")
            assert measures["mean of the second half"] <= measures["largest of the second half"]
    (none,), (_,), (apart,) = found["last mmd2 by seeds"].values()
    assert none < 0.3 < apart


def test_modes_of_known_samples() -> None:
    every, one = torch.eye(10).repeat(20, 1), torch.eye(10)[:1].repeat(200, 1)
    classifier = nn.Identity()
    assert generators.modes(classifier, every) == pytest.approx(
        {"classes": 10, "exp entropy": 10, "variation within": 0}
    )
    assert generators.modes(classifier, one) == pytest.approx({"classes": 1, "exp entropy": 1, "variation within": 0})
    rare = torch.cat([one, every[1:2]])
    assert generators.modes(classifier, rare)["classes"] == 1
    spread = torch.cat([3 * one, one])
    assert generators.modes(classifier, spread)["variation within"] == pytest.approx(1)


def test_generators(tmp_path: Path) -> None:
    found = run_experiment(tmp_path, "generators", steps=20, every=10, width=4, classifier_steps=400)
    assert found["classifier is right"] > 0.9
    assert found["held-out digits"]["classes"] == 10 and found["held-out digits"]["exp entropy"] > 9.9
    for name in generators.OBJECTIVES:
        assert [len(found[name][each]["along the run"]["mmd2"]) for each in generators.GENERATORS] == [2] * 3
    sizes = Sizes((1, 16, 16), 8, 4, True)
    kinds = [{type(layer).__name__ for layer in make(sizes)} for make in generators.GENERATORS.values()]
    assert ["BatchNorm2d" in each for each in kinds] == [True, False, False]
    assert ["ConvTranspose2d" in each for each in kinds] == [True, True, False]


def test_letters_and_back() -> None:
    rows = text.one_hot("hello, world. good", 6)
    assert text.spelt(rows, 6) == ["hello,", "lo, wo", " world", "rld. g", ". good"]
    assert set(text.plain_text()) == set(text.LETTERS)
    assert rows.shape == (5, 6 * len(text.LETTERS)) and (rows.unflatten(1, (-1, 6)).sum(1) == 1).all()


def test_divergences_of_known_texts() -> None:
    assert text.divergence(2, ["abab"], ["abab", "abab"]) == pytest.approx(0)
    assert text.divergence(1, ["aa"], ["bb"]) == pytest.approx(math.log(2))
    # m = (3/4, 1/4): half of log(4/3), and half of that of (1/2, 1/2) to m
    expected = 0.5 * math.log(4 / 3) + 0.25 * (math.log(2 / 3) + math.log(2))
    assert text.divergence(1, ["aa"], ["ab"]) == pytest.approx(expected)
    assert text.judged(["x the y cat zzz z"], ["x the y"], {"the"})["share of known words"] == pytest.approx(1 / 3)


def test_text(tmp_path: Path) -> None:
    found = run_experiment(tmp_path, "text", length=8, width=8, steps=20, every=10)
    for order in (2, 3, 4):
        name = f"js of {order}-grams"
        assert found["training text"][name] < found["independent letters"][name] / 2 < found["at the end"][name]
    assert found["training text"]["share of known words"] == 1
    assert all(len(sample) == 8 and set(sample) <= set(text.LETTERS) for sample in found["samples"])
    sizes = Sizes((len(text.LETTERS), 8), 4, 8, False)
    chances = text.text_generator(sizes, 1)(torch.randn(3, 4)).unflatten(1, sizes.shape)
    assert chances.sum(1).allclose(torch.ones(3, 8)) and text.text_critic(sizes, 1, 1)(chances.flatten(1)).shape == (
        3,
        1,
    )
