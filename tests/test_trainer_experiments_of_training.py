"""The experiments that follow whole trainings: what they measure, of known values, and small runs of each."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from trainer_runs import keep_threads, run_experiment, small  # noqa: F401

from wgan_kernels.trainer.experiments import loss_and_quality, overfitting
from wgan_kernels.trainer.experiments.runs import curves


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
