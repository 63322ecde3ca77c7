"""Recent models and folders: the last eight, newest first, and a list that is damaged or cannot be written harms nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_analysis.workbench.recent import (
    FILE,
    MOST,
    RecentModel,
    note_folder,
    note_model,
    recent_folders,
    recent_models,
)
from vlm_analysis.workbench.workspace import Workspace


def test_the_last_eight_models_are_kept_newest_first_and_each_once(tmp_path: Path) -> None:
    shelf = Workspace(tmp_path)
    for number in range(MOST + 2):
        note_model(shelf, RecentModel(f"/models/{number}", f"model {number}", {"device": "cpu"}))
    note_model(shelf, RecentModel("/models/5", "model 5", {"device": "auto", "max_vision_tokens": 64}))
    models = recent_models(shelf)
    assert [model.name for model in models] == [f"model {number}" for number in (5, 9, 8, 7, 6, 4, 3, 2)]
    assert models[0].options == {"device": "auto", "max_vision_tokens": 64}


def test_folders_and_models_do_not_push_each_other_out(tmp_path: Path) -> None:
    shelf = Workspace(tmp_path)
    note_model(shelf, RecentModel("/models/a", "a"))
    for number in range(MOST + 1):
        note_folder(shelf, f"/data/{number}")
    assert recent_folders(shelf) == [f"/data/{number}" for number in range(MOST, 0, -1)]
    assert [model.source for model in recent_models(shelf)] == ["/models/a"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"kind": "recent", "schema_version": 1, "models": [{"source": 5}], "folders": []}', "\x00" * 40],
)
def test_a_damaged_list_offers_nothing_and_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    shelf = Workspace(tmp_path)
    assert (recent_models(shelf), recent_folders(shelf)) == ([], [])
    note_folder(shelf, "/data")
    assert recent_folders(shelf) == ["/data"]


def test_a_workspace_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    note_folder(Workspace(tmp_path / "file"), "/data")
    assert recent_folders(Workspace(tmp_path / "file")) == []
