"""The user's own locks: saved with a mask, no part of what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlm_analysis import PruneMask, open_edit, save_edit
from vlm_analysis.edits.ownlocks import own_locks, with_own_locks


def test_locks_are_saved_with_the_mask_and_never_enter_its_key(tmp_path: Path) -> None:
    mask = PruneMask(8, (4,), provenance=with_own_locks({"made": "by hand"}, [6, 3]))
    again = open_edit(save_edit(mask, tmp_path / "mask.json"))
    assert (own_locks(again), again.provenance["made"]) == ((3, 6), "by hand")
    assert (again.key, again) == (PruneMask(8, (4,)).key, PruneMask(8, (4,)))


@pytest.mark.parametrize(
    ("told", "locks"), [(None, None), ("36", None), (3, None), ([], ()), ([4, 3, 3, 9, -1, True, "6", None, 6.5], (3,))]
)
def test_what_others_wrote_is_taken_only_where_it_names_kept_layers(told: Any, locks: Any) -> None:
    assert own_locks(PruneMask(8, (4,), provenance={"own_locks": told})) == locks


def test_locks_that_are_gone_leave_nothing() -> None:
    assert with_own_locks({"own_locks": [3], "made": "by hand"}, []) == {"made": "by hand"}
