"""Runs of the trainer that are stopped, killed, resumed, short of disk or spread over ranks."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kill_training import compare, differences
from trainer_runs import FILES, keep_threads, run, same, small  # noqa: F401

pytest.importorskip("jsonargparse")

import torch  # noqa: E402

from wgan_kernels.trainer import ranks  # noqa: E402
from wgan_kernels.trainer.__main__ import main  # noqa: E402
from wgan_kernels.trainer.loop import Training  # noqa: E402
from wgan_kernels.trainer.objectives import OBJECTIVES  # noqa: E402

SMALL = ("--width", "8", "--batch-size", "8", "--verify", "0")


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a training send itself a signal while it makes a step."""

    def at(when: int, number: int = signal.SIGINT) -> None:
        step = Training.step

        def interrupted_step(training: Training, check: Any = None) -> dict[str, float]:
            if training.step_count == when - 1:
                signal.raise_signal(number)
            return step(training, check)

        monkeypatch.setattr(Training, "step", interrupted_step)

    return at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_between_steps_and_saves(tmp_path: Path, interrupt_at: Any, number: int) -> None:
    interrupt_at(3, number)
    handler = signal.getsignal(number)
    status, metrics, checkpoint = run(tmp_path, "--steps", "1000", *SMALL)
    assert status == 128 + number
    assert metrics["outcome"] == "interrupted"
    assert metrics["steps"] == checkpoint["step"] == len(metrics["history"]["penalty"]) == 3
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert signal.getsignal(number) is handler


RESUMED = {
    **{name: ("--objective", name) for name in OBJECTIVES},
    "everything": (
        *("--objective", "nsgan", "--architecture", "dcgan", "--virtual-batch-norm", "--ema", "0.9", "--decay"),
        *("--historical-averaging", "0.1", "--instance-noise", "0.1", "--label-smoothing", "0.1", "--feature-matching"),
    ),
}


@pytest.mark.parametrize("name", RESUMED)
def test_resume_is_bit_for_bit(name: str) -> None:
    """A training whose state went through a file, and one that was left alone."""
    options = (*RESUMED[name], "--width", "4", "--steps", "8")
    whole, first, second = (small(*options, "--seed", seed, dtype=torch.float32) for seed in ("0", "0", "1"))
    for training in (whole, whole, whole, first):
        training.step()
    second.load_state_dict(first.state_dict())
    second.step(), second.step()
    assert differences(whole.state_dict(), second.state_dict()) == []


def test_a_resumed_run_leaves_what_the_whole_one_does(tmp_path: Path, interrupt_at: Any) -> None:
    options = ("--steps", "7", *SMALL, "--decay", "--checkpoint-every", "2", "--resume")
    _, metrics, whole = run(tmp_path / "whole", *options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "step", Training.step)
        interrupt_at(3)
        assert run(tmp_path / "parts", *options)[0] == 130
    saved = (tmp_path / "parts" / "config.yaml").read_text()
    status, resumed_metrics, resumed = run(tmp_path / "parts", "--config", str(tmp_path / "parts" / "config.yaml"))
    assert status == 0 and saved == (tmp_path / "parts" / "config.yaml").read_text()
    assert differences(whole, resumed) == []
    assert metrics["history"] == resumed_metrics["history"]
    assert metrics["mmd2_history"] == resumed_metrics["mmd2_history"]
    logs = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_killed_runs_resume_bit_for_bit(tmp_path: Path) -> None:
    left, different = compare(tmp_path, 400, kills=1, seed=1)
    assert different == [] and all(step % 5 == 0 and step > 0 for step in left)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--lr", "3e-4"), "--lr: must be that of the run in"),
        (("--objective", "wgan", "--lr", "1e-4"), "--objective: must be that of the run in"),
        (("--width", "9"), "--width: must be that of the run in"),
    ],
)
def test_another_runs_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, ...], words: str
) -> None:
    run(tmp_path, "--steps", "2", *SMALL)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["--out", str(tmp_path), "--steps", "2", *SMALL, *change, "--resume"]) == 2
    message = capsys.readouterr().err
    assert words in message and str(tmp_path) in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a checkpoint"),
        (b"no checkpoint", "cannot be read as a checkpoint"),
        ("half", "cannot be read as a checkpoint"),
        ({"model": torch.zeros(2)}, "is no checkpoint of this trainer"),
        ([1, 2], "is no checkpoint of this trainer"),
        ("object", "cannot be read as a checkpoint"),
        ("shapes", "does not fit this run"),
    ],
    ids=["empty", "text", "half", "foreign", "list", "object", "shapes"],
)
def test_bad_checkpoints_are_named_and_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, words: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content in ("half", "shapes"):
        _, _, state = run(tmp_path, "--steps", "2", *SMALL)
        if content == "half":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            state["networks"]["critic.0.weight"] = torch.zeros(3)
            torch.save(state, path)
    else:
        torch.save(Path("code") if content == "object" else content, path)
    before = path.read_bytes()
    assert main(["--out", str(tmp_path), "--steps", "2", *SMALL, "--resume"]) == 2
    message = capsys.readouterr().err
    assert words in message and str(tmp_path) in message and "Traceback" not in message
    assert path.read_bytes() == before


def test_a_full_disk_is_said_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second checkpoint does not find its room."""
    write, calls = Path.write_bytes, []

    def full(path: Path, content: Any) -> int:
        if "checkpoint" in path.name:
            calls.append(path)
            if len(calls) > 1:
                write(path, bytes(content)[:1000])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    options = ["--out", str(tmp_path), "--steps", "9", *SMALL, "--checkpoint-every", "3"]
    assert main(options) == 1
    message = capsys.readouterr().err
    assert "checkpoint.pt: cannot be written: No space left on device; the one from before is still there" in message
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    monkeypatch.setattr(Path, "write_bytes", write)
    assert main([*options, "--resume"]) == 0


def test_a_real_full_disk_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of the process may grow no longer than its checkpoint is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        status = main(["--out", str(tmp_path), "--steps", "2", "--verify", "0"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert status == 1 and "checkpoint.pt: cannot be written: File too large" in capsys.readouterr().err
    assert "checkpoint.pt" not in {path.name for path in tmp_path.iterdir()}


def test_memory_stays_flat() -> None:
    training = small("--batch-size", "64", "--width", "64", dtype=torch.float32)

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1])

    for _ in range(50):
        training.step()
    before = resident()
    for _ in range(200):
        training.step()
    assert resident() <= 1.01 * before


def test_two_ranks_make_the_steps_of_the_joined_batch(tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("distributed_training.py"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]):
        done = subprocess.run([sys.executable, *launcher, script, str(tmp_path)], env=environment, timeout=300,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for name, expected in alone.items():
        for key, value in expected.items():
            assert torch.equal(first[name][key], second[name][key]), (name, key)
            torch.testing.assert_close(first[name][key], value, rtol=1e-9, atol=1e-9)
    # Rank 1 was told to stop.
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 20 and (tmp_path / "run" / "metrics.json").exists()
    assert [(tmp_path / f"status-{rank}").read_text() for rank in (0, 1)] == ["130", "143"]


def test_ranks_must_share_a_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 3)
    assert main(["--out", str(tmp_path / "out"), "--steps", "2"]) == 2
    assert "--batch-size must be a multiple of the 3 ranks, got 64" in capsys.readouterr().err
    monkeypatch.setattr(ranks, "count", lambda: 2)
    assert main(["--out", str(tmp_path / "out"), "--steps", "2", "--compare"]) == 2
    assert "--compare is for one process" in capsys.readouterr().err
