"""Kills a training again and again at random moments, resumes it, and compares it with one that was left alone.

python tests/kill_training.py 20
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

OPTIONS = ["--width", "4", "--batch-size", "16", "--ema", "0.9", "--decay", "--checkpoint-every", "5", "--verify", "0"]


def command(out: Path, steps: int) -> list[str]:
    options = ["--out", str(out), "--steps", str(steps), "--resume", *OPTIONS]
    return [sys.executable, "-m", "wgan_kernels.trainer", *options]


def killed_and_resumed(out: Path, steps: int, kills: int, chance: random.Random) -> list[int]:
    """Runs to the end with that many kills, each some random moment after a new checkpoint; the steps that it left."""
    left = []
    checkpoint = out / "checkpoint.pt"
    for _ in range(kills):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(command(out, steps), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0) == before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise RuntimeError(f"the run of {steps} steps ended before all kills: make it longer")
        left.append(torch.load(checkpoint, weights_only=True)["step"])
    subprocess.run(command(out, steps), check=True, capture_output=True)
    return left


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two checkpoints are not the same bit for bit."""
    if isinstance(one, dict):
        keys = one.keys() | other.keys()
        return [each for key in keys for each in differences(one.get(key), other.get(key), f"{where}.{key}")]
    if isinstance(one, (list, tuple)):
        pairs = enumerate(zip(one, other, strict=True))
        return [each for index, pair in pairs for each in differences(*pair, f"{where}.{index}")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same or where in (".config.out", ".record.seconds") else [where]


def compare(folder: Path, steps: int, kills: int, seed: int) -> tuple[list[int], list[str]]:
    """The steps at which kills left the run, and all that differs in the end: of the checkpoints, and of the logs."""
    left = killed_and_resumed(folder / "killed", steps, kills, random.Random(seed))
    subprocess.run(command(folder / "whole", steps), check=True, capture_output=True)
    killed, whole = (torch.load(folder / name / "checkpoint.pt", weights_only=True) for name in ("killed", "whole"))
    logs = [(folder / name / "metrics.csv").read_text() for name in ("killed", "whole")]
    return left, differences(killed, whole) + ([] if logs[0] == logs[1] else ["metrics.csv"])


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    OPTIONS.extend(["--architecture", "dcgan", "--objective", "nsgan"])
    with tempfile.TemporaryDirectory() as folder:
        left, different = compare(Path(folder), 50 * kills, kills, seed=0)
    print(f"{kills} kills, resumed from steps {left}: ", end="")
    print(f"DIFFERENT: {different}" if different else "the same checkpoint and log, bit for bit")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
