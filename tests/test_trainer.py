"""The trainer, run as its users run it: through the command line's main."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

import torch  # noqa: E402

import wgan_kernels as wk  # noqa: E402
from wgan_kernels.trainer.__main__ import main  # noqa: E402
from wgan_kernels.trainer.data import load_digits  # noqa: E402
from wgan_kernels.trainer.loop import Training  # noqa: E402
from wgan_kernels.trainer.networks import ARCHITECTURES  # noqa: E402

FILES = {"checkpoint.pt", "curves.png", "metrics.json", "samples.png"}


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(out: Path, *options: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Exit status, metrics and checkpoint of a run into `out`."""
    status = main(["--out", str(out), "--no-compare", *options])
    metrics = json.loads((out / "metrics.json").read_text())
    return status, metrics, torch.load(out / "checkpoint.pt", weights_only=True)


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What is said to options that no run can have; nothing is made."""
    with pytest.raises(SystemExit) as exit_status:
        main(["--out", str(tmp_path / "out"), *options])
    assert exit_status.value.code == 2
    assert not (tmp_path / "out").exists()
    return capsys.readouterr().err


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit, whatever containers hold the tensors."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def test_a_run_learns_and_leaves_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder"
    status, metrics, checkpoint = run(out, "--steps", "300", "--lr", "1e-3")
    assert status == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in FILES if name.endswith(".png"))
    assert metrics["outcome"] == "finished"
    assert metrics["steps"] == checkpoint["step"] == 300
    assert metrics["config"]["steps"] == 300 and metrics["config"]["batch_size"] == 64
    history = metrics["history"]
    assert set(history) == {"critic_loss", "wasserstein", "penalty", "gradient_norm", "generator_loss"}
    assert all(len(values) == 300 for values in history.values())
    for loss, wasserstein, penalty in zip(history["critic_loss"], history["wasserstein"], history["penalty"]):
        assert loss == pytest.approx(penalty - wasserstein, abs=1e-5)
    assert 0.9 < sum(history["gradient_norm"][-50:]) / 50 < 1.2
    assert metrics["mmd2_history"][0] == [0, metrics["mmd2"]["untrained"]]
    assert metrics["mmd2_history"][-1] == [300, metrics["mmd2"]["generated"]]
    assert metrics["mmd2"]["generated"] < 0.1 * metrics["mmd2"]["untrained"]
    assert abs(metrics["mmd2"]["train"]) < 0.005
    assert metrics["verification"]["checks"] == 6
    summary = capsys.readouterr().out
    for value in metrics["mmd2"].values():
        assert f"{value:.5f}" in summary
    assert "6 checked steps agree with plain PyTorch" in summary and "not compared" in summary


def test_checkpoint_gives_the_samples_again(tmp_path: Path) -> None:
    _, metrics, checkpoint = run(tmp_path, "--steps", "3")
    data = load_digits()
    generator = ARCHITECTURES["mlp"].make_generator(8)
    generator.load_state_dict(checkpoint["generator"])
    with torch.no_grad():
        samples = generator(checkpoint["evaluation_latents"])
    again = wk.mmd2(samples, data.held_out, wk.kernels.RBF(metrics["bandwidth"])).item()
    assert again == metrics["mmd2"]["generated"]


def test_same_seed_same_bits_checked_or_not(tmp_path: Path) -> None:
    """The checks take no random numbers and leave no trace in what is trained."""
    first, second, other = (
        run(tmp_path / name, "--steps", "6", "--seed", seed, "--verify", verify)[1:]
        for name, seed, verify in (("a", "3", "1"), ("b", "3", "0"), ("c", "4", "0"))
    )
    assert first[0]["history"] == second[0]["history"]
    assert first[0]["mmd2_history"] == second[0]["mmd2_history"]
    for part in ("critic", "generator", "critic_optimizer", "generator_optimizer", "evaluation_latents"):
        assert same(first[1][part], second[1][part])
    assert not same(first[1]["generator"], other[1]["generator"])
    assert (first[0]["verification"]["checks"], second[0]["verification"]["checks"]) == (6, 0)


def test_a_run_leaves_the_global_random_numbers_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    run(tmp_path, "--steps", "1")
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("wrong", ["value", "gradient", "nan"])
def test_a_wrong_penalty_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    """By 1% in all, by 1% in the gradients alone, or NaN: from the critic step on that the third step checks."""
    right, calls = wk.wasserstein_critic_loss, []

    def critic_loss(*args: Any, **settings: Any) -> Any:
        calls.append(None)
        _, wasserstein, penalty, norms = right(*args, **settings)
        if len(calls) > 16:  # five critic steps and a check for each of two steps, then four critic steps
            by_gradient = 1.01 * penalty - 0.01 * penalty.detach()
            penalty = {"value": 1.01 * penalty, "gradient": by_gradient, "nan": penalty * torch.nan}[wrong]
        return penalty - wasserstein, wasserstein, penalty, norms

    monkeypatch.setattr(wk, "wasserstein_critic_loss", critic_loss)
    status, metrics, checkpoint = run(tmp_path, "--steps", "50", "--verify", "1")
    assert status == 1
    assert metrics["outcome"] == "verification failed"
    assert metrics["steps"] == checkpoint["step"] == 2
    output = capsys.readouterr()
    assert "step 3: library and plain PyTorch disagree" in output.err
    assert "tolerance" in output.err and "0.weight" in output.err
    assert "FAILED, as reported below; 2 checked steps before it agreed" in output.out


def test_interrupt_ends_between_steps_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Training.step

    def interrupted_step(training: Training, check: Any = None) -> dict[str, float]:
        if training.step_count == 2:
            signal.raise_signal(signal.SIGINT)
        return step(training, check)

    monkeypatch.setattr(Training, "step", interrupted_step)
    handler = signal.getsignal(signal.SIGINT)
    status, metrics, checkpoint = run(tmp_path, "--steps", "1000")
    assert status == 130
    assert metrics["outcome"] == "interrupted"
    assert metrics["steps"] == checkpoint["step"] == len(metrics["history"]["penalty"]) == 3
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert signal.getsignal(signal.SIGINT) is handler


def test_divergence_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, metrics, _ = run(tmp_path, "--steps", "20", "--lr", "1e30", "--verify", "0")
    assert status == 1
    assert metrics["outcome"] == "diverged"
    assert "smaller --lr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "0"], ["--steps", "at least 1", "'0'"]),
        (["--batch-size", "many"], ["--batch-size", "integer", "'many'"]),
        (["--seed", "-1"], ["--seed", "at least 0", "'-1'"]),
        (["--verify", "1.5"], ["--verify", "integer", "'1.5'"]),
        (["--threads", "0"], ["--threads", "from 1", "'0'"]),
        (["--lr", "0"], ["--lr", "greater than 0", "'0'"]),
        (["--lr", "nan"], ["--lr", "finite", "'nan'"]),
        (["--backend", "fast"], ["--backend", "fast", "native", "triton"]),
        (["--architecture", "cnn"], ["--architecture", "cnn", "dcgan"]),
        (["--step", "3"], ["--step"]),
    ],
)
def test_bad_options_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    message = refusal(tmp_path, capsys, *options)
    assert all(word in message for word in words)


def test_unwritable_folder_fails_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Training, "step", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["--out", str(out)]) == 2
        message = capsys.readouterr().err
        assert "--out" in message and str(out) in message and "writable folder" in message


def test_missing_native_library_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unavailable(name: str) -> None:
        raise RuntimeError(f"the {name!r} back end is not available: no compiler")

    monkeypatch.setattr(wk, "use_backend", unavailable)
    assert "the 'native' back end is not available: no compiler" in refusal(tmp_path, capsys, "--backend", "native")


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="Triton's interpreter serves CPU tensors")
def test_a_back_end_that_cannot_serve_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument --backend: the 'triton' back end" in refusal(tmp_path, capsys, "--backend", "triton")


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        main(["--help"])
    assert exit_status.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "architecture",
        "steps",
        "batch-size",
        "lr",
        "seed",
        "out",
        "backend",
        "threads",
        "verify",
        "no-compare",
    ):
        assert f"--{option}" in text


def test_split_is_disjoint_complete_and_always_the_same() -> None:
    data, again = load_digits(), load_digits()
    assert torch.equal(data.train, again.train) and torch.equal(data.held_out, again.held_out)
    assert data.train.shape == (1437, 64) and data.held_out.shape == (360, 64) and data.shape == (8, 8)
    everything = torch.cat([data.train, data.held_out])
    assert everything.min() == -1 and everything.max() == 1
    # No two of the 1,797 images are equal, so that disjoint images are disjoint rows.
    assert len(everything.unique(dim=0)) == len(everything) == 1797
