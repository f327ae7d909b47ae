"""Experiments that judge samples by a classifier: random architectures and autoencoders."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
from trainer_runs import keep_threads, run_experiment  # noqa: F401

linalg = pytest.importorskip("scipy.linalg")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from wgan_kernels.trainer.data import load  # noqa: E402
from wgan_kernels.trainer.experiments import autoencoders, classifier, robustness  # noqa: E402
from wgan_kernels.trainer.experiments.__main__ import main  # noqa: E402
from wgan_kernels.trainer.files import FileError  # noqa: E402
from wgan_kernels.trainer.networks import Sizes, mlp_critic  # noqa: E402
from wgan_kernels.trainer.objectives.base import Batch  # noqa: E402


def random(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def idx_folder(folder: Path, **labels: bytes) -> str:
    """Images of two classes, dark and bright, 40 and 20 of each; labels: in place of the right ones of a part."""
    for part, number in (("train", 80), ("t10k", 40)):
        classes = np.arange(number) % 2
        noise = np.random.default_rng(number).integers(0, 60, (number, 14, 14))
        pixels = (noise + 190 * classes[:, None, None]).astype(np.uint8)
        head = b"".join(value.to_bytes(4, "big") for value in (0x803, *pixels.shape))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        right = b"\0\0\x08\x01" + number.to_bytes(4, "big") + classes.astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels.get(part, right))
    return str(folder)


def test_labels_are_those_of_the_digits() -> None:
    data, (train, held_out) = load("digits"), classifier.labels("digits")
    assert (len(train), len(held_out)) == (1437, 360)
    make = partial(mlp_critic, Sizes(data.shape, 1, 32, False), 10, 1)
    network = classifier.train_classifier(make, data.train, train, 300, 0)
    assert classifier.accuracy(network(data.held_out), held_out) > 0.9 and not network[0].weight.requires_grad


WRONG_LABELS = {
    "another kind": b"\0\0\x08\x03" + (40).to_bytes(4, "big") + bytes(40),
    "cut off": b"\0\0\x08\x01" + (40).to_bytes(4, "big") + bytes(39),
    "too many classes": b"\0\0\x08\x01" + (40).to_bytes(4, "big") + bytes([10]) * 40,
    "nothing": b"",
}


@pytest.mark.parametrize("content", WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_labels_that_are_wrong(content: bytes, tmp_path: Path) -> None:
    assert classifier.labels(idx_folder(tmp_path))[1].tolist() == [0, 1] * 20
    with pytest.raises(FileError, match="t10k-labels-idx1-ubyte: must be"):
        classifier.labels(idx_folder(tmp_path, t10k=content))
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileError, match="t10k-labels-idx1-ubyte: cannot be read"):
        classifier.labels(str(tmp_path))


def test_inception_scores_that_are_known() -> None:
    sure, probabilities = 100 * torch.eye(10), torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    assert classifier.inception_score(sure) == pytest.approx(10)
    assert classifier.inception_score(sure[:4].repeat(3, 1)) == pytest.approx(4)
    assert classifier.inception_score(sure[:1].repeat(3, 1)) == pytest.approx(1)
    divergence = sum(p * math.log(p / m) for row in probabilities.tolist() for p, m in zip(row, (0.7, 0.3))) / 2
    assert classifier.inception_score(probabilities.log() + 5) == pytest.approx(math.exp(divergence))


def test_frechet_distance_is_that_of_the_formula() -> None:
    x, y = random(60, 5), random(100, 5)[40:] @ random(5, 5) + 3
    cov_x, cov_y = np.cov(x.double().T), np.cov(y.double().T)
    root = linalg.sqrtm(cov_x @ cov_y).real
    expected = (x.mean(0) - y.mean(0)).square().sum().item() + np.trace(cov_x + cov_y - 2 * root)
    assert classifier.frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert classifier.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    # Fewer samples than features: covariances without an inverse.
    assert classifier.frechet_distance(x[:3], x[:3] + 1) == pytest.approx(5, rel=1e-5)


def test_architectures_are_drawn_from_all_choices() -> None:
    drawn = robustness.choose(200, 0)
    assert drawn == robustness.choose(200, 0) != robustness.choose(200, 1)
    for part, values in robustness.OF_EACH.items():
        for player in "GD":
            assert {choice[f"{part} of {player}"] for choice in drawn} == set(values)


def kinds(network: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in network]


def test_an_architecture_is_as_chosen() -> None:
    choice = {f"{part} of {player}": values[-1] for part, values in robustness.OF_EACH.items() for player in "GD"}
    choice |= {"depth of D": 2, "depth of G": 2, "nonlinearity of D": "softplus", "width of G": 32}
    sizes = Sizes((64,), 8, 128, True)
    of = {name: robustness.architecture(choice, name) for name in robustness.OBJECTIVES}
    generator = of["wgan-gp"].make_generator(sizes)
    assert kinds(generator) == ["Linear", "BatchNorm1d", "Tanh"] * 2 + ["Linear", "Tanh"]
    assert generator(random(5, 8)).shape == (5, 64) and generator[0].out_features == 32
    for name, norm in (("nsgan", "BatchNorm1d"), ("wgan", "BatchNorm1d"), ("wgan-gp", "LayerNorm")):
        critic = of[name].make_critic(sizes, 1)
        assert kinds(critic) == ["Linear", "Softplus", "Linear", norm, "Softplus", "Linear"]
        assert critic[0].out_features == 64
    assert robustness.Softplus()(torch.tensor([-1.0])).item() == pytest.approx(math.log(2) / 2 - 1)
    choice |= {"normalisation of D": False, "normalisation of G": False}
    assert kinds(robustness.architecture(choice, "nsgan").make_generator(sizes)).count("BatchNorm1d") == 0
    assert kinds(robustness.architecture(choice, "nsgan").make_critic(sizes, 1)).count("BatchNorm1d") == 0


def test_who_trains_how_many() -> None:
    truth = {"nsgan": (1, 0, 0, 1, 0), "wgan": (1, 0, 0, 0, 0), "wgan-gp": (1, 0, 1, 1, 1)}
    found = robustness.outcomes({name: np.array(each, dtype=bool) for name, each in truth.items()})
    assert found == {"only wgan-gp": 2, "all": 1, "none": 1, "nsgan and wgan-gp": 1}


def test_means_are_over_those_with_the_choice() -> None:
    choices = robustness.choose(3, 0)
    for choice, depth in zip(choices, (2, 8, 2), strict=True):
        choice["depth of G"] = depth
    found = robustness.by_choice(choices, {"wgan": np.array([1.0, 2.0, 4.0])})
    assert found["depth of G: 2"] == {"wgan": 2.5} and found["depth of G: 8"] == {"wgan": 2}
    assert "depth of G: 4" not in found


def test_random_architectures(tmp_path: Path) -> None:
    sizes = {"architectures": 2, "critic_steps": 200}
    found = run_experiment(tmp_path, "robustness", least_scores=(0.5, 1.2, 20.0), most_mmd2=(2.0,), **sizes)
    assert found["accuracy of the classifier"] > 0.9 and found["score of"]["held-out digits"] > 8
    assert found["outcomes"]["score > 0.5"] == found["outcomes"]["MMD^2 < 2"] == {"all": 2}
    assert found["outcomes"]["score > 20"] == {"none": 2}
    assert found["successes"]["score > 1.2"] == {
        name: sum(score > 1.2 for score in found["score"][name]) for name in robustness.OBJECTIVES
    }
    assert max(found["score"]["nsgan"]) > 1.2  # it has learnt
    assert max(found["mmd2"]["wgan-gp"]) < 0.5


def test_sharpness_of_known_images() -> None:
    flat, slope = torch.full((1, 36), 0.3), torch.linspace(-1, 1, 6).repeat(6)[None]
    board = ((torch.arange(6)[:, None] + torch.arange(6)) % 2 * 2.0 - 1).flatten()[None]
    of_flat, of_slope, of_board = (autoencoders.sharpness(each, (1, 6, 6)) for each in (flat, slope, board))
    assert of_flat == pytest.approx(0, abs=1e-10) and of_slope == pytest.approx(0, abs=1e-10)
    assert of_board == pytest.approx(16 * 16 / 15)  # 4 and -4, as often, in 16 places
    assert autoencoders.sharpness(torch.cat([flat, board]), (1, 6, 6)) == pytest.approx(8 * 16 / 15)


def test_the_bound_of_the_vae_is_that_of_the_densities() -> None:
    """For codes of one dimension, with the expectation over the draw that is given."""
    networks = nn.ModuleDict({"encoder": nn.Linear(3, 4), "generator": nn.Linear(2, 3)}).double()
    real, noise = random(7, 3).double(), random(14).double()[:14].reshape(7, 2)
    mean, log_variance = networks.encoder(real).chunk(2, 1)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    decoded = networks.generator(mean + (log_variance / 2).exp() * noise)
    divergence = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()

    def bound(deviation: torch.Tensor) -> torch.Tensor:
        return divergence - torch.distributions.Normal(decoded, deviation).log_prob(real).sum(1).mean()

    likeliest = (real - decoded).square().mean().sqrt()
    loss = autoencoders.VAE(latent=2).loss(networks, Batch(real=real, latent=noise))["loss"]
    constant = 3 / 2 * (math.log(math.tau) + 1)
    assert (loss + constant).item() == pytest.approx(bound(likeliest).item())
    assert min(bound(likeliest * 1.1), bound(likeliest * 0.9)) > bound(likeliest)


SMALL = {"width": 4, "judged": 100, "subset_size": 20, "features": 8}


def test_autoencoders(tmp_path: Path) -> None:
    found = run_experiment(tmp_path, "autoencoders", data=idx_folder(tmp_path), steps=120, classifier_steps=60, **SMALL)
    assert found["accuracy of the classifier"] == 1
    trained = {"vae", "wae-mmd", "wae-gan"}
    assert set(found) == trained | {"accuracy of the classifier", "data"}
    baseline = found["data"]["samples"]
    for name in trained:
        assert 0 < found[name]["squared error of a pixel"] < 0.05  # 0.14 for one grey
        assert found[name]["samples"]["Frechet distance"] > baseline["Frechet distance"]
        assert found[name]["samples"]["KID"] > baseline["KID"]
        assert found[name]["sharpness of reconstructions"] > 0


def test_data_without_labels_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(idx_folder(tmp_path)) / "train-labels-idx1-ubyte").unlink()
    assert main(["autoencoders", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "train-labels-idx1-ubyte" in capsys.readouterr().err
