"""gradient_penalty where people train: every route in every setting, and what the README says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_features import FEATURES, REFUSALS, REFUSED, ROUTES

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", FEATURES)
def test_every_feature(name: str, route: str) -> None:
    if (name, route) in REFUSED:
        with pytest.raises(REFUSALS, match=r"route|closed form|torch\.func"):
            FEATURES[name](route)
    else:
        FEATURES[name](route)


@pytest.mark.parametrize("name", FEATURES)
def test_the_readme_says_the_same(name: str) -> None:
    cells = ["refused" if (name, route) in REFUSED else "yes" for route in ROUTES]
    assert f"| {name} | {' | '.join(cells)} |" in README
