"""The trainer, run as its users run it: through the command line's main."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import FILES, keep_threads, refusal, run, same  # noqa: F401

pytest.importorskip("jsonargparse")

import torch  # noqa: E402
import yaml  # noqa: E402

import wgan_kernels as wk  # noqa: E402
from wgan_kernels.trainer import loop  # noqa: E402
from wgan_kernels.trainer.__main__ import main  # noqa: E402
from wgan_kernels.trainer.config import Config, parse  # noqa: E402
from wgan_kernels.trainer.data import load  # noqa: E402
from wgan_kernels.trainer.loop import Training  # noqa: E402
from wgan_kernels.trainer.networks import ARCHITECTURES, Sizes  # noqa: E402
from wgan_kernels.trainer.objectives import OBJECTIVES  # noqa: E402
from wgan_kernels.trainer.twin import compare  # noqa: E402


def test_a_run_learns_and_leaves_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder"
    status, metrics, checkpoint = run(out, "--steps", "200", "--lr", "1e-3", "--decay")
    assert status == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in FILES if name.endswith(".png"))
    assert metrics["outcome"] == "finished"
    assert metrics["steps"] == checkpoint["step"] == 200
    assert metrics["config"]["steps"] == 200 and metrics["config"]["batch_size"] == 64
    history = metrics["history"]
    assert set(history) == {"critic_loss", "wasserstein", "penalty", "gradient_norm", "generator_loss"}
    for loss, wasserstein, penalty in zip(history["critic_loss"], history["wasserstein"], history["penalty"]):
        assert loss == pytest.approx(penalty - wasserstein, abs=1e-5)
    assert 0.9 < sum(history["gradient_norm"][-50:]) / 50 < 1.2
    assert metrics["mmd2_history"][0] == [0, metrics["mmd2"]["untrained"]]
    assert metrics["mmd2_history"][-1] == [200, metrics["mmd2"]["generated"]]
    assert metrics["mmd2"]["generated"] < 0.1 * metrics["mmd2"]["untrained"]
    assert abs(metrics["mmd2"]["train"]) < 0.005 and abs(metrics["mmd2"]["gaussian"]) < 0.005
    assert metrics["verification"]["checks"] == 8
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(step) for step in range(201)]
    assert [float(row["penalty"]) for row in rows[1:]] == history["penalty"]
    assert [[int(row["step"]), float(row["mmd2"])] for row in rows if row["mmd2"]] == metrics["mmd2_history"]
    summary = capsys.readouterr().out
    said = yaml.safe_load(summary)
    assert said["mmd2"] == {name: pytest.approx(value, rel=1e-3) for name, value in metrics["mmd2"].items()}
    assert said["run"] == "wgan-gp (mlp-small) on digits" and said["verification"]["checks"] == 8


def test_checkpoint_gives_the_samples_again(tmp_path: Path) -> None:
    _, metrics, checkpoint = run(tmp_path, "--steps", "3")
    generator = ARCHITECTURES["mlp-small"].make_generator(Sizes((1, 8, 8), 32, 128, True))
    generator.load_state_dict({name.removeprefix("generator."): value
                               for name, value in checkpoint["networks"].items() if "generator" in name})  # fmt: skip
    with torch.no_grad():
        samples = generator(checkpoint["latents"])
    kernel = wk.kernels.RBF(metrics["bandwidth"])
    assert wk.mmd2(samples, load("digits").held_out, kernel).item() == metrics["mmd2"]["generated"]


@pytest.mark.parametrize("architecture", ["dcgan", "dcgan-layer-norm"])
def test_convolutions_learn_checked_and_come_back(tmp_path: Path, architecture: str) -> None:
    size = ("--batch-size", "32", "--latent", "32", "--width", "4")
    options = ("--architecture", architecture, "--steps", "12", "--lr", "2e-3", "--decay", "--verify", "6")
    status, metrics, checkpoint = run(tmp_path, *options, *size)
    assert status == 0 and metrics["verification"]["checks"] == 4
    assert metrics["mmd2"]["generated"] < 0.9 * metrics["mmd2"]["untrained"]
    generator = ARCHITECTURES[architecture].make_generator(Sizes((1, 16, 16), 32, 4, True))
    generator.load_state_dict({name.removeprefix("generator."): value
                               for name, value in checkpoint["networks"].items() if "generator" in name})  # fmt: skip
    with torch.no_grad():
        samples = generator.eval()(checkpoint["latents"])
    kernel = wk.kernels.RBF(metrics["bandwidth"])
    assert wk.mmd2(samples, load("digits", 16).held_out, kernel).item() == metrics["mmd2"]["generated"]


def test_same_seed_same_bits_checked_or_not(tmp_path: Path) -> None:
    """The checks take no random numbers and leave no trace in what is trained."""
    state = torch.get_rng_state()
    options = ("--steps", "2", "--width", "4", "--architecture", "dcgan", "--batch-size", "8", "--critic-steps", "2")
    first, second, other = (
        run(tmp_path / name, *options, "--seed", seed, "--verify", verify)[1:]
        for name, seed, verify in (("a", "3", "1"), ("b", "3", "0"), ("c", "4", "0"))
    )
    assert torch.equal(state, torch.get_rng_state())
    assert first[0]["history"] == second[0]["history"]
    assert first[0]["mmd2_history"] == second[0]["mmd2_history"]
    for part in ("networks", "critic optimizer", "generator optimizer", "latents", "random"):
        assert same(first[1][part], second[1][part])
    assert not same(first[1]["networks"], other[1]["networks"])
    assert (first[0]["verification"]["checks"], second[0]["verification"]["checks"]) == (4, 0)


def test_the_saved_configuration_makes_the_run_again(tmp_path: Path) -> None:
    _, first, _ = run(tmp_path / "a", "--steps", "2", "--objective", "wgan", "--width", "8", "--clip", "0.02")
    saved = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert saved["critic_steps"] == 5 and saved["lr"] == 5e-5 and saved["clip"] == 0.02 and saved["batch_size"] == 64
    _, second, _ = run(tmp_path / "b", "--config", str(tmp_path / "a" / "config.yaml"), "--out", str(tmp_path / "b"))
    assert first["history"] == second["history"]


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
    status, metrics, checkpoint = run(tmp_path, "--steps", "50", "--verify", "1", "--checkpoint-every", "1")
    assert status == 1
    assert metrics["outcome"] == "verification failed"
    assert metrics["steps"] == checkpoint["step"] == 2
    output = capsys.readouterr()
    assert "step 3, critic: library and plain PyTorch disagree" in output.err
    assert "tolerance" in output.err and "0.weight" in output.err
    assert yaml.safe_load(output.out)["verification"]["checks"] == 4  # two updates of each step before


def test_a_wrong_optimiser_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gradients are right, and the clip is not."""
    right = wk.optim.ClippedRMSprop
    wrong = lambda params, lr, clip: right(params, lr, clip=clip and clip * 1.01)  # noqa: E731
    monkeypatch.setattr(wk.optim, "ClippedRMSprop", wrong)
    status, metrics, _ = run(tmp_path, "--objective", "wgan", "--steps", "5", "--verify", "1")
    assert status == 1 and metrics["outcome"] == "verification failed"
    assert "weights" in capsys.readouterr().err


def test_divergence_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, metrics, _ = run(tmp_path, "--steps", "20", "--lr", "1e30", "--verify", "0")
    assert status == 1
    assert metrics["outcome"] == "diverged" and not (tmp_path / "checkpoint.pt").exists()
    assert "smaller --lr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "0"], ["steps", "v>0", "0"]),
        (["--batch-size", "many"], ["batch_size", "int", "'many'"]),
        (["--seed", "-1"], ["seed", "v>=0", "-1"]),
        (["--verify", "1.5"], ["verify", "1.5"]),
        (["--threads", "0"], ["threads", "v>=1", "0"]),
        (["--lr", "0"], ["lr", "v>0", "0"]),
        (["--lr", "nan"], ["lr", "nan"]),
        (["--lr", "inf"], ["lr", "v<inf"]),
        (["--ema", "1"], ["ema", "v<1"]),
        (["--backend", "fast"], ["backend", "fast", "native", "triton"]),
        (["--architecture", "cnn"], ["architecture", "cnn", "dcgan"]),
        (["--objective", "vae"], ["objective", "vae", "wae-mmd"]),
        (["--step", "3"], ["--step"]),
        (["--config", "nowhere.yaml"], ["config", "nowhere.yaml"]),
        (["--label-smoothing", "0.1"], ["--label-smoothing makes no sense with wgan-gp"]),
        (["--clip", "0.1"], ["--clip makes no sense with wgan-gp"]),
        (["--objective", "gan", "--penalty-weight", "1"], ["--penalty-weight makes no sense with gan"]),
        (["--objective", "wae-mmd", "--instance-noise", "0.1"], ["--instance-noise makes no sense with wae-mmd"]),
        (["--objective", "mmd-gan", "--feature-matching"], ["--feature-matching makes no sense with mmd-gan"]),
        (["--minibatch-discrimination"], ["--minibatch-discrimination makes no sense with wgan-gp"]),
        (["--virtual-batch-norm"], ["--virtual-batch-norm needs", "batch normalisation", "dcgan"]),
        (["--architecture", "dcgan", "--data", "8gaussians"], ["8gaussians", "(2,)", "--architecture"]),
        (["--data", "nowhere"], ["nowhere: no such file or folder"]),
        (["--cuda-graphs"], ["--cuda-graphs: needs --device cuda, got --device cpu"]),
    ],
)
def test_bad_options_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    message = refusal(tmp_path / "out", capsys, *options)
    assert all(word in message for word in words), message


@pytest.mark.skipif("torch.cuda.is_available()")
def test_a_missing_gpu_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument --device: 'cuda' needs a GPU" in refusal(tmp_path / "out", capsys, "--device", "cuda")


def test_an_unknown_key_of_a_yaml_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("batch_siz: 3\n")
    assert "batch_siz" in refusal(tmp_path / "out", capsys, "--config", str(tmp_path / "c.yaml"))


def test_unwritable_folder_fails_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Training, "step", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["--out", str(out)]) == 2
        message = capsys.readouterr().err
        assert f"error: argument --out: must be a writable folder, got {str(out)!r}: " in message


@pytest.mark.parametrize("program", ["trainer", "trainer.experiments"])
def test_a_missing_package_is_named_and_no_mistake_of_ours_is_taken_for_one(program: str) -> None:
    for name in ("yaml", "wgan_kernels.trainer.files"):
        script = f"import runpy, sys; sys.modules[{name!r}] = None; runpy.run_module('wgan_kernels.{program}')"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
        assert done.returncode == 1
        assert ("yaml: install the package with its [trainer] extra" in done.stderr) == (name == "yaml")
        assert ("Traceback" in done.stderr) == (name != "yaml")


def test_missing_native_library_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unavailable(name: str) -> None:
        raise RuntimeError(f"the {name!r} back end is not available: no compiler")

    monkeypatch.setattr(wk, "use_backend", unavailable)
    message = refusal(tmp_path / "out", capsys, "--backend", "native")
    assert "the 'native' back end is not available: no compiler" in message


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="Triton's interpreter serves CPU tensors")
def test_a_back_end_that_cannot_serve_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument --backend: the 'triton' back end" in refusal(tmp_path / "out", capsys, "--backend", "triton")


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        main(["--help"])
    assert exit_status.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in Config.__dataclass_fields__)
    assert all(name in text for name in OBJECTIVES)


@pytest.mark.parametrize(
    "options",
    [
        ["--objective", "wgan"],
        ["--objective", "wae-mmd", "--backend", "reference"],
        ["--backend", "reference"],
        ["--architecture", "dcgan"],
        ["--architecture", "dcgan-layer-norm"],
    ],
)
def test_comparison_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    size = ("--steps", "4", "--batch-size", "16", "--width", "4")
    status, metrics, _ = run(tmp_path, *size, "--compare", *options)
    assert status == 0
    comparison = metrics["comparison"]
    assert all(min(comparison[name].values()) > 0 and len(comparison[name]) == 2 for name in ("rates", "bytes"))
    assert comparison["curve_steps"] == 4 and comparison["curve_difference"] < 1e-12
    library, plain = comparison["curves"].values()
    assert library == pytest.approx(plain, rel=0.1)
    assert (tmp_path / "comparison.png").exists()
    said = yaml.safe_load(capsys.readouterr().out)["comparison"]
    assert said["same_curve"] is True and said["speedup"] > 0 and "curves" not in said


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
    status, metrics, _ = run(tmp_path, "--steps", "2", "--verify", "0", "--compare")
    assert status == 1
    assert yaml.safe_load(capsys.readouterr().out)["comparison"]["same_curve"] is False
    assert metrics["outcome"] == "finished"
    assert (metrics["comparison"]["curve_difference"] is None) == (wrong != wrong)


def test_an_interrupted_comparison_ends() -> None:
    assert compare(parse([]), load("digits"), lambda: True) is None


def test_two_dimensions_amp_averages_and_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    options = ("--data", "8gaussians", "--steps", "5", "--verify", "2", "--amp", "--ema", "0.9", "--tensorboard")
    status, metrics, checkpoint = run(tmp_path, *options)
    assert status == 0 and metrics["verification"]["checks"] == 6
    assert metrics["modes"]["modes"] == 8 and 0 <= metrics["modes"]["near"] <= 1
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"surface.png", "tensorboard"}
    assert any((tmp_path / "tensorboard").iterdir()) and "average" in checkpoint
    assert yaml.safe_load(capsys.readouterr().out)["modes"]["modes"] == 8


def test_a_critic_of_codes_has_no_surface_over_the_samples(tmp_path: Path) -> None:
    options = ("--objective", "wae-gan", "--data", "swissroll", "--width", "8", "--steps", "1", "--verify", "0")
    assert run(tmp_path, *options)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_losses_can_be_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a back end that calls no compiler of C++: the whole loss is one graph, and gives what it gave before."""
    compiled = torch.compile
    monkeypatch.setattr(loop.torch, "compile", lambda f: compiled(f, backend="aot_eager", fullgraph=True))
    options = ("--steps", "3", "--width", "8", "--verify", "1")
    assert run(tmp_path / "a", *options, "--compile")[0] == 0
    one, other = (run(tmp_path / name, *options, *more)[1]["history"]["critic_loss"]
                  for name, more in (("b", []), ("c", ["--compile"])))  # fmt: skip
    assert one == pytest.approx(other, rel=1e-4)
