"""Long calls of mmd2: bars over their pairs, and interrupts that leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from cases import assert_same_bits, leaf, samples
from tolerances import INTERRUPT
from torch import Tensor

from wgan_kernels import mmd2, progress
from wgan_kernels.kernels import RBF

N, M, D = 400, 300, 64
KERNEL = RBF(8.0)
PAIRS = (N + M) * (N + M - 1) / 2


class Bar:
    """What tqdm would have been told."""

    made: list[Bar] = []
    at_update: Any = None

    def __init__(self, total: float, desc: str, **style: Any) -> None:
        self.total, self.desc, self.updates, self.closed = total, desc, [], False
        Bar.made.append(self)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: Any) -> None:
        self.closed = True

    def update(self, done: float) -> None:
        self.updates.append(done)
        if Bar.at_update is not None:
            Bar.at_update(self)


@pytest.fixture
def bars(native: None, monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """Calls of this size count as large, and their bars are kept."""
    module = sys.modules["wgan_kernels.ops.kernel_sums"]
    monkeypatch.setattr(module, "_WORK_PER_CALL", PAIRS * (D + 8) / 5)
    monkeypatch.setattr(progress, "_bar_class", lambda: Bar)
    monkeypatch.setattr(Bar, "made", [])
    return Bar.made


def points(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return leaf(samples((N, D), dtype, seed=1)), samples((M, D), dtype, seed=2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_bar_for_every_sweep(bars: list[Bar], dtype: torch.dtype) -> None:
    x, y = points(dtype)
    value = mmd2(x, y, KERNEL, progress=True)
    assert [bar.desc for bar in bars] == ["mmd2"]
    value.backward(retain_graph=True)  # the forward sweep left the gradient behind
    assert len(bars) == 1
    (grad,) = torch.autograd.grad(value, x, create_graph=True)
    assert [bar.desc for bar in bars] == ["mmd2", "mmd2 backward"]
    grad.square().sum().backward()
    assert [bar.desc for bar in bars] == ["mmd2", "mmd2 backward", "mmd2 double backward"]
    for bar in bars:
        assert bar.closed and bar.total == PAIRS == sum(bar.updates)
        assert len(bar.updates) > 3 and max(bar.updates) < 0.5 * PAIRS


def test_the_first_rank_of_a_group_shows_the_bar(bars: list[Bar], tmp_path: Path) -> None:
    x, y = points()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        value = mmd2(x, y, KERNEL, group=dist.group.WORLD, progress=True)
        assert [bar.desc for bar in bars] == ["mmd2"]
        torch.autograd.grad(value, x, create_graph=True)
        assert [bar.desc for bar in bars] == ["mmd2", "mmd2 backward"]
        mmd2(x, y, KERNEL, group=dist.group.WORLD)
        assert len(bars) == 2
    finally:
        dist.destroy_process_group()


def test_only_calls_that_ask_for_one_have_a_bar(bars: list[Bar]) -> None:
    x, y = points()
    silent = mmd2(x, y, KERNEL)
    shown = mmd2(x, y, KERNEL, progress=True)
    assert_same_bits(silent.detach(), shown.detach())
    assert len(bars) == 1
    torch.autograd.grad(silent, x, create_graph=True)
    mmd2(x, y, KERNEL)
    mmd2(x[:20], y[:20], KERNEL, progress=True)  # short
    assert len(bars) == 1

    def elsewhere(bar: Bar) -> None:
        thread = threading.Thread(target=lambda: mmd2(x.detach(), y, KERNEL))
        thread.start()
        thread.join()

    Bar.at_update = elsewhere
    try:
        mmd2(x.detach(), y, KERNEL, progress=True)
    finally:
        Bar.at_update = None
    assert len(bars) == 2


@pytest.mark.parametrize("sweep", ["mmd2", "mmd2 backward", "mmd2 double backward"])
def test_an_interrupt_in_any_sweep_closes_its_bar(bars: list[Bar], sweep: str) -> None:
    x, y = points()

    def interrupt(bar: Bar) -> None:
        if bar.desc == sweep and len(bar.updates) == 2:
            signal.raise_signal(signal.SIGINT)

    def call() -> None:
        (grad,) = torch.autograd.grad(mmd2(x, y, KERNEL, progress=True), x, create_graph=True)
        grad.sum().backward()

    Bar.at_update = interrupt
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
    finally:
        Bar.at_update = None
    assert bars[-1].desc == sweep and bars[-1].closed and len(bars[-1].updates) == 2
    before = len(bars)
    torch.autograd.grad(mmd2(x, y, KERNEL), x, create_graph=True)
    assert len(bars) == before, "nobody asked for these"
    call()
    assert len(bars) == before + 3


def test_ctrl_c_in_a_call_of_minutes(native: None, tmp_path: Path) -> None:
    """It is heard at once, and threads, files, the bar and the memory are gone."""
    pytest.importorskip("tqdm")
    script = """
import gc, os, signal, threading, time, torch
signal.alarm(60)  # the end of it all where nothing is heard
from tqdm import tqdm
from wgan_kernels import kernels, mmd2
torch.set_num_threads(1)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
x, y, kernel = torch.randn(500_000, 8, requires_grad=True), torch.randn(500_000, 8), kernels.RBF(2.0)
expected = mmd2(x[:5000], y[:5000], kernel, progress=True).item()
before = resident()
try:
    mmd2(x, y, kernel, progress=True)
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
gc.collect()
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert not tqdm._instances, list(tqdm._instances)
assert resident() - before < 32, (before, resident())
assert mmd2(x[:5000], y[:5000], kernel).item() == expected
print("done")
"""
    command = [sys.executable, "-c", script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as child:
        shown = ""
        while "mmd2:   0%" not in shown:
            piece = child.stderr.read(1)
            assert piece, f"ended before it was interrupted: {shown}"
            shown += piece
        time.sleep(0.1)  # into the middle of a range
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err[-2000:]
    heard, done = out.split()
    assert done == "done" and float(heard) - sent < INTERRUPT
    assert list(tmp_path.iterdir()) == []


def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    progress._bar_class.cache_clear()
    x = torch.zeros(3, 2)
    with pytest.raises(ImportError, match="progress=True needs tqdm: pip install tqdm"):
        mmd2(x, x, KERNEL, progress=True)
    assert mmd2(x, x, KERNEL).item() == 0
