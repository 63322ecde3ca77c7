"""Shared mode: no code of checkpoints, no hub ids, no path of the server outside of the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_analysis import PruneMask, StrataError, export_checkpoint, load_model, open_prompts, save_mask
from vlm_analysis.guard.shared import home, is_shared
from vlm_analysis.models.source import BUNDLED_FOLDER, open_source
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_SHARED", "1")


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("yes", True), ("", False), ("0", False), ("no", False), ("False", False)]
)
def test_the_environment_turns_it_on(monkeypatch: pytest.MonkeyPatch, value: str, on: bool) -> None:
    monkeypatch.setenv("STRATA_SHARED", value)
    assert is_shared() == on


@pytest.mark.usefixtures("shared")
class TestForbidden:
    @pytest.mark.parametrize("source", ["owner/name", "/etc", "~", "../..", ".", str(Path(__file__).parent)])
    def test_hub_ids_and_folders_of_the_server(self, source: str) -> None:
        with pytest.raises(StrataError, match=r"is not allowed: .*STRATA_SHARED"):
            load_model(source)

    def test_code_of_a_checkpoint(self) -> None:
        with pytest.raises(StrataError, match="Running code of a checkpoint is not allowed"):
            load_model("pocket-vl", trust_remote_code=True)

    @pytest.mark.parametrize("inside", ["", "exports/../..", "exports/../../x"])
    def test_exports_and_prompts_outside_of_the_workspace(self, loaded, tmp_path: Path, inside: str) -> None:
        outside = home() / inside if inside else tmp_path / "x"
        with pytest.raises(StrataError, match=r"Exporting to .* is not allowed"):
            export_checkpoint(loaded, PruneMask(16, (5,)), outside)
        with pytest.raises(StrataError, match=r"Opening prompts at .* is not allowed"):
            open_prompts(outside)
        assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("shared")
class TestAllowed:
    def test_the_bundled_model_and_folders_that_the_owner_put_into_the_workspace(self) -> None:
        assert open_source("pocket-vl").name == "pocket-vl"
        (home() / "exports").mkdir(parents=True)
        (home() / "exports" / "mine").symlink_to(BUNDLED_FOLDER)
        assert open_source(home() / "exports" / "mine").where == str(BUNDLED_FOLDER)

    def test_packs_uploads_and_saved_prompts(self) -> None:
        packs = open_prompts("math")[:2]
        item = keep_prompts(Workspace(), packs, "mine")
        assert open_item(item).fingerprint == packs.fingerprint
        with pytest.raises(StrataError, match=r"'t\.csv'"):
            open_prompts(("t.csv", b""))

    def test_masks_are_written_where_the_caller_says(self, tmp_path: Path) -> None:
        assert save_mask(PruneMask(4, (1,)), tmp_path / "m.json").exists()
