"""The Python of the guides and of the README runs, and prints what they say."""

from __future__ import annotations

import importlib
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def run(page: str, names: dict[str, Any]) -> None:
    """All blocks of a page, one after another, as one session."""
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun tells each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port), ("RANK", 0), ("WORLD_SIZE", 1)):
        monkeypatch.setenv(name, str(value))


def test_the_guide_of_the_mmd(one_rank: None, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("tqdm")
    with torch.random.fork_rng():
        run("docs/mmd.md", {})
    said = re.findall(r"print\(.*\)  # prints (.*)$", "\n".join(blocks("docs/mmd.md")), flags=re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == said and len(said) > 8


def test_the_readme() -> None:
    critic = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Linear(16, 1))
    samples = {name: torch.randn(12, 8) for name in ("x", "y", "real", "fake")}
    samples |= {name: torch.randn(1000, 8) for name in ("real_features", "fake_features")}
    run("README.md", {"torch": torch, "nn": nn, "critic": critic, **samples})
    assert all(parameter.abs().max() <= 0.01 for parameter in critic.parameters())  # the blocks did clip


@pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")])
def test_links_and_pictures_are_there(page: str) -> None:
    folder = (ROOT / page).parent
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()) if ":" not in target]
    assert targets and [target for target in targets if not (folder / target).exists()] == []
    assert [path.name for path in (folder / "images").iterdir() if path.stat().st_size > 150_000] == []


def test_the_pictures_of_the_mmd_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(ROOT / "docs")
    pictures = importlib.import_module("mmd_pictures")
    monkeypatch.setattr(pictures, "TRIALS", 1)
    monkeypatch.setattr(pictures, "PERMUTATIONS", 19)
    for draw in (pictures.draw_power, pictures.draw_witness, pictures.draw_scaling):
        figure = draw()
        assert all(axes.has_data() for axes in figure.axes)
        pictures.plt.close(figure)
