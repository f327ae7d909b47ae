"""What the tests of the trainer share: runs through the command line's main, and small trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

for needed in ("scipy", "sklearn", "matplotlib", "tqdm", "jsonargparse", "PIL"):
    pytest.importorskip(needed)

import torch  # noqa: E402

from wgan_kernels.trainer.__main__ import main  # noqa: E402
from wgan_kernels.trainer.config import parse  # noqa: E402
from wgan_kernels.trainer.data import Data, load  # noqa: E402
from wgan_kernels.trainer.experiments import EXPERIMENTS  # noqa: E402
from wgan_kernels.trainer.experiments.experiment import perform  # noqa: E402
from wgan_kernels.trainer.loop import Training  # noqa: E402
from wgan_kernels.trainer.networks import ARCHITECTURES  # noqa: E402
from wgan_kernels.trainer.objectives import make_objective  # noqa: E402
from wgan_kernels.trainer.twin import Verifier  # noqa: E402

FILES = {"checkpoint.pt", "config.yaml", "curves.png", "metrics.csv", "metrics.json", "samples.png", "weights.png"}


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(out: Path, *options: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Exit status, metrics and checkpoint, if there is one, of a run into `out`."""
    status = main(["--out", str(out), *options])
    metrics = json.loads((out / "metrics.json").read_text())
    path = out / "checkpoint.pt"
    return status, metrics, torch.load(path, weights_only=True) if path.exists() else {}


def refusal(out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What is said to options that no run can have; nothing is made."""
    try:
        status = main(["--out", str(out), *options])
    except SystemExit as left:
        status = left.code
    assert status == 2 and not out.exists()
    return capsys.readouterr().err


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit, whatever containers hold the tensors."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def small(*options: str, dtype: torch.dtype = torch.float64, plain: bool = False) -> Training:
    """A training of small networks, on digits unless the options say otherwise."""
    config = parse(["--width", "12", "--batch-size", "8", *options])
    data: Data = load(config.data, ARCHITECTURES[config.architecture].least_side)
    return Training(config, data, make_objective(config, plain), dtype)


def checked(training: Training, steps: int) -> Verifier:
    verifier = Verifier(training.config)
    for _ in range(steps):
        training.step(verifier)
    return verifier


def run_experiment(folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    """The numbers of a small run, as its JSON has them; the picture is there too."""
    experiment = EXPERIMENTS[name]
    perform(experiment, experiment.settings(**settings), folder)
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / f"{name}.json").read_text())["numbers"]
