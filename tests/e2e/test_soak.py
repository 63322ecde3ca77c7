"""Two browsers use one dashboard for some minutes: pages, masks, evaluations, cancels. `make soak` does so for an hour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.soak import LEAST_ROUNDS, MOST_GROWTH, WARM_ROUNDS, growth, soak
from vlm_analysis.workbench.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MINUTES = 3


@pytest.mark.slow
def test_after_minutes_of_two_browsers_the_server_holds_the_memory_it_held(chromium: Browser, tmp_path: Path) -> None:
    looks = soak(chromium, MINUTES, tmp_path)
    assert len(looks) >= WARM_ROUNDS + LEAST_ROUNDS
    assert growth(looks) <= MOST_GROWTH, [look // 2**20 for look in looks]
    evaluated = Workspace(tmp_path / ".strata").items("evaluations")
    assert (
        len({item.details["edit"] for item in evaluated}) > 2
    )  # the pages worked: masks beside the demo's were evaluated
