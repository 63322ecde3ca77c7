"""The workspace: what is saved is there after a restart, and what went wrong leaves nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from writing import ID, folder, text

from vlm_analysis import Cancelled, PruneMask
from vlm_analysis.errors import WorkspaceError
from vlm_analysis.workbench.shelf import keep_mask, open_item, write_notes
from vlm_analysis.workbench.sidecars import NAME_LIMIT
from vlm_analysis.workbench.workspace import KINDS, Item, Workspace


def writer(kind: str) -> Callable[[Path], None]:
    return text() if KINDS[kind] else folder


def sidecar(item: Item) -> Path:
    return item.path.parent / f"{item.id}.item.json"


def files(workspace: Workspace) -> list[str]:
    return sorted(str(p.relative_to(workspace.root)) for p in workspace.root.rglob("*") if p.parent != workspace.root)


class TestSaving:
    @pytest.mark.parametrize("kind", KINDS)
    def test_everything_saved_is_there_after_a_restart(self, workspace: Workspace, kind: str) -> None:
        saved = workspace.save(
            kind,
            "Every second layer",
            writer(kind),
            model="m-1",
            prompts="p-1",
            model_name="Pocket-VL",
            details={"budget": 4, "domains": ("math", "general"), "retention": {"math": 0.5}},
        )
        assert Workspace(workspace.root).items(kind) == [saved]
        assert Workspace(workspace.root).find(kind, saved.id) == saved
        assert saved.path.name == saved.id + KINDS[kind]
        assert saved.path.is_file() if KINDS[kind] else (saved.path / "prompts.jsonl").is_file()
        assert (saved.model, saved.prompts, saved.model_name) == ("m-1", "p-1", "Pocket-VL")
        assert saved.details == {"budget": 4, "domains": ["math", "general"], "retention": {"math": 0.5}}
        assert abs(datetime.now(UTC) - datetime.fromisoformat(saved.created)).total_seconds() < 60
        assert workspace.problems() == []

    def test_only_the_thing_and_its_sidecar_are_left(self, workspace: Workspace) -> None:
        item = workspace.save("recordings", "r", text())
        assert files(workspace) == [f"recordings/{item.id}.item.json", f"recordings/{item.id}.npz"]

    def test_the_temporary_path_has_the_right_ending_and_is_not_listed(self, workspace: Workspace) -> None:
        seen: list[Any] = []

        def write(path: Path) -> None:
            seen.extend(
                [path.suffix, path.exists(), workspace.items("recordings"), Workspace(workspace.root).problems()]
            )
            path.write_bytes(b"x")

        workspace.save("recordings", "r", write)
        assert seen == [".npz", False, [], []]

    def test_items_come_newest_first_within_the_same_second_too(self, workspace: Workspace) -> None:
        saved = [workspace.save("masks", str(n), text()) for n in range(20)]
        assert [item.name for item in workspace.items("masks")] == [str(n) for n in reversed(range(20))]
        assert len({item.id for item in saved}) == 20

    def test_newest_respects_model_and_prompts(self, workspace: Workspace) -> None:
        old = workspace.save("masks", "old", text(), model="a", prompts="p")
        new = workspace.save("masks", "new", text(), model="b", prompts="p")
        assert workspace.newest("masks") == new
        assert workspace.newest("masks", model="a") == old
        assert workspace.newest("masks", prompts="p") == new
        assert workspace.newest("masks", model="a", prompts="q") is None
        assert workspace.newest("recordings") is None

    def test_not_a_number_comes_back_as_missing_and_other_details_are_refused(self, workspace: Workspace) -> None:
        item = workspace.save("masks", "m", text(), details={"score": float("nan"), "worst": float("-inf")})
        assert item.details == {"score": None, "worst": None}
        assert workspace.items("masks") == [item]
        before = files(workspace)
        for details in ({"path": Path()}, {"long": "x" * 300_000}):
            with pytest.raises(WorkspaceError, match="details"):
                workspace.save("masks", "m", text(), details=details)
        assert files(workspace) == before

    def test_unknown_kinds_are_refused_with_the_choices(self, workspace: Workspace) -> None:
        for ask in (workspace.items, workspace.newest, lambda kind: workspace.save(kind, "n", text())):
            with pytest.raises(WorkspaceError, match=r"expected one of prompts, .*recordings.*got '\.\./x'"):
                ask("../x")


class TestRoot:
    def test_root_is_the_environment_variable_else_the_home_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("STRATA_HOME", str(tmp_path / "here"))
        assert Workspace().root == tmp_path / "here"
        assert Workspace(tmp_path / "given").root == tmp_path / "given"
        monkeypatch.setenv("STRATA_HOME", "~/there")
        assert Workspace().root == tmp_path / "there"
        monkeypatch.setenv("STRATA_HOME", "")
        assert Workspace().root == tmp_path / ".strata"
        assert list(tmp_path.iterdir()) == [], "looking must not create anything"

    def test_an_empty_root_has_no_items_and_no_problems(self, workspace: Workspace) -> None:
        assert [workspace.items(kind) for kind in KINDS] == [[]] * len(KINDS)
        assert workspace.problems() == []
        assert workspace.find("masks", ID) is None

    def test_a_root_that_is_a_file_is_a_problem_and_refuses_saving(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        workspace = Workspace(tmp_path / "file")
        assert workspace.items("masks") == []
        assert "Not a directory" in workspace.problems()[0]
        with pytest.raises(WorkspaceError, match="Not a directory"):
            workspace.save("masks", "m", text())
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.parametrize(
        ("number", "says"),
        [(errno.EACCES, "without write permission"), (errno.EROFS, "read-only"), (errno.ENOSPC, "full disk")],
    )
    def test_an_unwritable_root_is_explained(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, number: int, says: str
    ) -> None:
        def refuse(path: Path, *args: object, **kwargs: object) -> None:
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(WorkspaceError, match=rf"Saving 'm' to .* failed: expected a writable folder, got .*{says}"):
            workspace.save("masks", "m", text())

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_write_permission_is_explained(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(WorkspaceError, match="without write permission"):
                Workspace(tmp_path / "home").save("masks", "m", text())
        finally:
            tmp_path.chmod(0o700)


class TestFailedWrites:
    @pytest.mark.parametrize("kind", ["masks", "prompts"])
    @pytest.mark.parametrize(
        "failure",
        [ValueError("bug"), Cancelled(), KeyboardInterrupt(), SystemExit(1), FileNotFoundError(2, "no image")],
    )
    def test_a_failed_write_leaves_nothing_and_its_error_is_passed_on(
        self, workspace: Workspace, kind: str, failure: BaseException
    ) -> None:
        def write(path: Path) -> None:
            writer(kind)(path)
            raise failure

        with pytest.raises(type(failure)) as caught:
            workspace.save(kind, "broken", write)
        assert caught.value is failure
        assert files(workspace) == []

    @pytest.mark.parametrize(
        ("number", "says"),
        [
            (errno.ENOSPC, "full disk.*nothing saved before is lost"),
            (errno.EDQUOT, "full disk"),
            (errno.EACCES, "without write permission at /x/y"),
            (errno.EROFS, "read-only"),
        ],
    )
    def test_a_full_or_closed_disk_is_explained_and_leaves_nothing(
        self, workspace: Workspace, number: int, says: str
    ) -> None:
        kept = workspace.save("recordings", "kept", text())
        before = files(workspace)

        def write(path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(number, os.strerror(number), "/x/y")

        with pytest.raises(WorkspaceError, match=says):
            workspace.save("recordings", "lost", write)
        assert files(workspace) == before
        assert workspace.items("recordings") == [kept]

    @pytest.mark.parametrize(("kind", "write"), [("masks", lambda path: None), ("masks", folder), ("prompts", text())])
    def test_a_writer_that_writes_nothing_or_the_wrong_sort_is_refused(
        self, workspace: Workspace, kind: str, write: Callable[[Path], None]
    ) -> None:
        with pytest.raises(WorkspaceError, match="got none written"):
            workspace.save(kind, "wrong", write)
        assert files(workspace) == []

    @pytest.mark.parametrize("failing", [".npz", ".item.json"])
    def test_a_failed_rename_leaves_nothing(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        rename = Path.rename

        def sometimes(path: Path, target: Path) -> Path:
            if str(target).endswith(failing):
                raise OSError(errno.EIO, "Input/output error")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", sometimes)
        with pytest.raises(WorkspaceError, match="Input/output error"):
            workspace.save("recordings", "r", text())
        assert files(workspace) == []


class TestIdsAndNames:
    @pytest.mark.parametrize(
        "item_id",
        [
            "",
            "..",
            "../x",
            f"../masks/{ID}",
            f"{ID}/..",
            f"{ID}\n",
            f"{ID}\0",
            ID.upper(),
            "٢" + ID[1:],
            "*",
            None,
            7,
            b"x",
        ],
    )
    def test_an_id_of_another_form_finds_nothing(self, workspace: Workspace, item_id: Any) -> None:
        workspace.save("masks", "m", text())
        assert workspace.find("masks", item_id) is None

    def test_an_id_never_leaves_its_folder(self, workspace: Workspace) -> None:
        item = workspace.save("masks", "m", text())
        stray = workspace.root / f"{item.id}.item.json"
        stray.write_text(sidecar(item).read_text())
        (workspace.root / f"{item.id}.json").write_text("{}")
        for item_id in (f"../{item.id}", f"../masks/{item.id}"):
            assert workspace.find("masks", item_id) is None
            with pytest.raises(WorkspaceError, match="expected the id of an item"):
                workspace.delete(replace(item, id=item_id))
            with pytest.raises(WorkspaceError, match="expected the id of an item"):
                workspace.rename(replace(item, id=item_id), "x")
        assert stray.exists()
        assert item.path.exists()

    def test_deleting_ignores_a_path_that_is_not_the_items_own(self, workspace: Workspace, tmp_path: Path) -> None:
        item = workspace.save("masks", "m", text())
        (tmp_path / "mine").write_text("x")
        workspace.delete(replace(item, path=tmp_path / "mine"))
        assert (tmp_path / "mine").exists()
        assert workspace.items("masks") == []

    @given(name=st.text(st.characters(), max_size=200))
    def test_no_name_can_break_a_path_a_sidecar_or_a_screen(self, name: str) -> None:
        with tempfile.TemporaryDirectory() as root:
            item = Workspace(Path(root)).save("masks", name, text())
            assert Workspace(Path(root)).items("masks") == [item]
            assert item.path.parent == Path(root) / "masks"
            assert 1 <= len(item.name) <= NAME_LIMIT
            assert not [c for c in item.name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
            assert item.name == item.name.strip()
            item.name.encode()

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("  two\r\nlines\t", "two lines"),
            ("../../etc/passwd", "../../etc/passwd"),
            ("a\x00\x1b[31mb", "a[31mb"),
            ("lone \ud800 half", "lone half"),
            ("gpj.\u202etxt", "gpj.txt"),
            ("\x00\n", "untitled"),
            ("x" * 500, "x" * 120),
            ("層の刈り込み 👩‍🔬", "層の刈り込み 👩‍🔬"),
        ],
    )
    def test_names_are_shown_clean(self, workspace: Workspace, name: str, shown: str) -> None:
        assert workspace.save("masks", name, text()).name == shown

    def test_a_new_name_changes_nothing_else(self, workspace: Workspace) -> None:
        item = workspace.save("masks", "old", text("content"), model="a", details={"budget": 2})
        renamed = workspace.rename(item, "new\nname")
        assert renamed == replace(item, name="new name")
        assert Workspace(workspace.root).items("masks") == [renamed]
        assert renamed.path.read_text() == "content"
        assert len(files(workspace)) == 2

    def test_a_noted_detail_changes_nothing_else_and_lists_see_it_at_once(self, workspace: Workspace) -> None:
        other = Workspace(workspace.root)
        item = workspace.save("masks", "one", text("content"), details={"budget": 2})
        assert other.items("masks") == [item]
        noted = workspace.note(item, starred=True)
        assert noted == replace(item, details={"budget": 2, "starred": True})
        assert other.items("masks") == workspace.items("masks") == [noted]
        workspace.delete(item)
        with pytest.raises(WorkspaceError, match="it was deleted"):
            workspace.note(item, starred=False)

    def test_notes_go_into_the_masks_file_and_the_end_of_long_ones_stays(self, workspace: Workspace) -> None:
        item = keep_mask(workspace, PruneMask(8, [3], name="one", notes="short, and the rest"))
        short = workspace.note(item, notes="short")  # version 0.1 kept the beginning only
        assert open_item(write_notes(workspace, short, "long")).notes == "long, and the rest"
        assert workspace.items("masks")[0].details["notes"] == "long, and the rest"

    @pytest.mark.parametrize("kind", ["masks", "prompts"])
    def test_a_deleted_item_is_gone_and_deleting_twice_is_harmless(self, workspace: Workspace, kind: str) -> None:
        item, kept = workspace.save(kind, "gone", writer(kind)), workspace.save(kind, "kept", writer(kind))
        workspace.delete(item)
        workspace.delete(item)
        assert workspace.items(kind) == [kept]
        assert not [name for name in files(workspace) if item.id in name]
        with pytest.raises(WorkspaceError, match="it was deleted"):
            workspace.rename(item, "ghost")
        assert not [name for name in files(workspace) if item.id in name]


def test_the_workspace_needs_neither_torch_nor_streamlit() -> None:
    code = "import sys, vlm_analysis.workbench.workspace; sys.exit(bool({'torch', 'streamlit'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 0
