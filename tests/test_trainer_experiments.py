"""The experiments of the trainer: known answers on small sizes, and that the guide tells of the runs that are kept."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from trainer_runs import keep_threads  # noqa: F401
from trainer_runs import run_experiment as run

pytest.importorskip("scipy")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from wgan_kernels.trainer.experiments import EXPERIMENTS, critics, gradient_norms, surfaces, transport  # noqa: E402
from wgan_kernels.trainer.experiments.__main__ import main  # noqa: E402
from wgan_kernels.trainer.experiments.experiment import perform, plain  # noqa: E402
from wgan_kernels.trainer.files import FileError  # noqa: E402

DOCS = Path(__file__).parents[1] / "docs"


def test_four_piles_are_5_apart(tmp_path: Path) -> None:
    found = run(tmp_path, "four-piles")
    assert found["delta"] == [2, 2, -1, 0]
    assert len(found["distance"]) == 4 and set(found["distance"].values()) == {5}
    assert np.sum(found["plan"], axis=1).tolist() == [3, 2, 1, 4]
    assert np.sum(found["plan"], axis=0).tolist() == [1, 2, 4, 3]


def test_four_piles_of_other_sizes_agree(tmp_path: Path) -> None:
    distances = list(run(tmp_path, "four-piles", p=(0.5, 0, 4, 1, 2), q=(2, 2, 1, 2.5, 0))["distance"].values())
    assert distances == pytest.approx([distances[0]] * 4)


def test_transport_of_samples_is_that_of_the_programme() -> None:
    x, y = torch.randn(2, 12, 2, generator=torch.Generator().manual_seed(0))
    cost, weights = torch.cdist(x.double(), y.double()).numpy(), np.full(12, 1 / 12)
    best = (transport.cheapest_plan(weights, weights, cost) * cost).sum()
    f1, f2 = transport.potentials(weights, weights, cost)
    assert transport.distance(x, y) == pytest.approx(best) == pytest.approx(f1.mean() + f2.mean())
    assert (f1[:, None] + f2[None] <= cost + 1e-9).all()


def test_a_programme_without_solution_is_not_taken_for_one() -> None:
    with pytest.raises(RuntimeError, match="not solved"):
        transport.cheapest_plan(np.ones(2), np.full(2, 2.0), np.ones((2, 2)))


def test_the_xy_game_spirals_outwards(tmp_path: Path) -> None:
    found = run(tmp_path, "xy-game", steps=100)
    assert found["growth a step"] == {"smallest": 1.00499, "largest": 1.00499}
    assert found["last radius"]["simultaneous"] == pytest.approx(math.sqrt(2) * 1.01**50, rel=1e-5)
    assert found["alternating"]["change of x^2 + y^2 - eta x y"] < 1e-12
    assert 1.3 < found["alternating"]["smallest radius"] < found["alternating"]["largest radius"] < 1.42


def test_segments(tmp_path: Path) -> None:
    found = run(tmp_path, "segments", thetas=(-0.5, 0.0, 0.5), programme_samples=16, steps=200, lr=2e-3)
    assert found["exact"] == {"w1": [0.5, 0, 0.5], "js": [0.693147, 0, 0.693147], "kl": ["inf", 0, "inf"]}
    left, middle, right = found["linear programme"]
    assert left == right and 0.5 <= right < 0.56 and 0 < middle < 0.2
    for kind in ("clipped", "penalised"):
        assert found[kind]["value / slope"] == pytest.approx([0.5, 0, 0.5], abs=0.05)
        assert found[kind]["gradient of theta / slope"][0] < -0.7 and found[kind]["gradient of theta / slope"][2] > 0.7
    assert found["discriminator"]["value"] == pytest.approx([math.log(2), 0, math.log(2)], abs=0.05)
    assert abs(found["discriminator"]["gradient of theta"][2]) < 0.2


def test_the_best_discriminator(tmp_path: Path) -> None:
    found = run(tmp_path, "optimal-discriminator", means=(0.0, 2.0), steps=200, held_out=10_000)
    assert found["2 JS - 2 log 2"] == found["value of D*"] and found["value of D*"][0] == -1.38629
    assert found["trained"]["value"] == pytest.approx(found["value of D*"], abs=0.03)
    assert max(found["trained"]["mean |D - D*|"]) < 0.03


def test_a_better_discriminator_teaches_less(tmp_path: Path) -> None:
    sizes = {"critic_steps": 400, "every": 50, "samples": 64, "width": 32}
    found = run(tmp_path, "vanishing-gradient", stages=(2, 20), lr=1e-3, **sizes)
    for stage in ("generator of 2 steps", "generator of 20 steps"):
        falls = found[stage]["largest / last"]
        assert falls["minimax"] > 20 > 3 > max(falls["non-saturating"], falls["wgan-gp"])
        assert all(len(curve) == len(found["critic steps"]) == 9 for curve in found[stage]["norms"].values())


def test_fits_of_one_gaussian(tmp_path: Path) -> None:
    found = run(tmp_path, "kl-fits", modes=(-2.0, 2.0), weights=(0.5, 0.5), sigma=0.5)
    forward, reverse = found["forward"][0], found["reverse"][0]
    assert (forward["mean"], forward["sigma"]) == pytest.approx((0, math.sqrt(0.5**2 + 4)), abs=1e-4)
    assert found["moments of the target"] == {"mean": 0, "sigma": 2.06155}
    assert (abs(reverse["mean"]), reverse["sigma"]) == pytest.approx((2, 0.5), abs=1e-2)
    assert reverse["reverse"] == pytest.approx(math.log(2), abs=1e-2)


def linear_critic(*matrices: torch.Tensor) -> nn.Sequential:
    layers = [nn.Linear(matrix.size(1), matrix.size(0)) for matrix in matrices]
    for layer, matrix in zip(layers, matrices):
        layer.weight.data = matrix
    return nn.Sequential(*layers)


def test_gradient_norms_of_a_known_critic() -> None:
    critic = linear_critic(torch.diag(torch.tensor([3.0, 0.5])), torch.eye(2) * 10, torch.tensor([[3.0, 4.0]]))
    points = torch.randn(5, 2)
    assert gradient_norms.norms_by_layer(critic, points) == pytest.approx([10 * math.hypot(9, 2), 50, 5])
    assert critics.slopes(critic, points).tolist() == pytest.approx([10 * math.hypot(9, 2)] * 5)


def test_gradients_of_deep_critics(tmp_path: Path) -> None:
    found = run(tmp_path, "gradient-norms", clips=(0.1, 0.001), steps=40, batch_size=16, width=32, samples=50)
    assert set(found) == {"c = 0.1", "c = 0.001", "penalty"}
    assert 0 < found["c = 0.001"]["norms"][0] < 1e-10 < 1e-4 < found["penalty"]["norms"][0] < 10
    assert found["c = 0.001"]["largest weight"] <= 0.001 < found["penalty"]["largest weight"]
    assert 0 < found["c = 0.001"]["share of weights at the bound"] <= 1


def test_share_that_a_quadratic_explains() -> None:
    points = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    x, y = points.T
    assert surfaces.quadratic_share(points, 1 + x - 2 * x * y + y * y) == pytest.approx(1)
    assert abs(surfaces.quadratic_share(points, (20 * x).sin())) < 0.01


def test_surfaces(tmp_path: Path) -> None:
    sizes = {"steps": 300, "batch_size": 64, "width": 64, "samples": 200, "resolution": 8}
    found = run(tmp_path, "surfaces", data=("8gaussians",), penalty_weight=1.0, **sizes)["8gaussians"]
    distance = found["distance of samples by linear programming"]
    assert 0.2 < found["penalised"]["value / steepest slope"] < distance < 1.0
    assert found["clipped"]["value"] < 0.01 * found["penalised"]["value"]  # K W1, of a small K
    fall = "fall beside the data / steepest slope"
    assert found["penalised"][fall] > 0.1 > found["clipped"][fall]


def test_numbers_that_json_lacks() -> None:
    value = {1: [np.float64("inf"), float("nan"), -0.0, 1 / 3], "t": torch.tensor([1, 2]), "s": "x", "n": None}
    assert plain(value) == {"1": ["inf", "nan", 0.0, 0.333333], "t": [1, 2], "s": "x", "n": None}


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(EXPERIMENTS)
    options = ["--steps", "3", "--eta", "0.2", "--start", "[2, 0.5]", "--threads", "1"]
    assert main(["xy-game", "--out", str(tmp_path), *options]) == 0
    assert "1.0198" in capsys.readouterr().out
    kept = json.loads((tmp_path / "xy-game.json").read_text())
    assert kept["settings"] == {"eta": 0.2, "steps": 3, "start": [2, 0.5]}
    assert {"torch", "scipy", "wgan_kernels"} <= set(kept["versions"]) and kept["seconds"] >= 0


REFUSED = [([], "--list"), (["chess"], "four-piles"), (["xy-game", "--eta", "a"], "eta")]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_command_lines_that_cannot_be(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["xy-game", "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err
    with pytest.raises(FileError):
        perform(EXPERIMENTS["xy-game"], EXPERIMENTS["xy-game"].settings(steps=3), tmp_path / "nowhere")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_guide_tells_of_the_run_that_is_kept(name: str) -> None:
    kept = json.loads((DOCS / "experiments" / f"{name}.json").read_text())
    assert kept["settings"] == plain(asdict(EXPERIMENTS[name].settings()))
    assert (DOCS / "experiments" / f"{name}.png").stat().st_size < 150_000
    assert re.search(rf"^## .*`{name}`$", (DOCS / "experiments.md").read_text(), flags=re.MULTILINE)
