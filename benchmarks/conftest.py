from __future__ import annotations

import pytest
import torch

import wgan_kernels as wk
from benchmarks import contest, roofline


@pytest.fixture(autouse=True)
def seeded() -> None:
    assert wk.build_info()["native"], f"there are no kernels to time: {wk.build_info()['reason']}"
    torch.manual_seed(0)


@pytest.fixture
def record(benchmark):
    """Puts a contest's ratios into pytest-benchmark's own record of the same call."""

    def keep(row: contest.Row, call) -> None:
        benchmark.extra_info.update({f"ratio to {name}": round(ratio, 3) for name, ratio in row.ratios.items()})
        quick = row.seconds[contest.OURS] < 0.2
        benchmark.pedantic(call, rounds=10 if quick else 2, iterations=1, warmup_rounds=2 if quick else 0)

    return keep


def pytest_terminal_summary(terminalreporter) -> None:
    if contest.ROWS:
        terminalreporter.section("contests: medians of interleaved calls")
        for row in contest.ROWS:
            for line in row.lines():
                terminalreporter.write_line(line)
        terminalreporter.write_line(roofline.summary())
