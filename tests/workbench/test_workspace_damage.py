"""The workspace in bad days: killed processes, damaged sidecars, several processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from writing import ID, folder, text

from vlm_analysis.errors import WorkspaceError
from vlm_analysis.files import owned, read_bytes
from vlm_analysis.workbench.workspace import PART_AGE_S, Damaged, Item, Workspace


def sidecar(item: Item) -> Path:
    return item.path.parent / f"{item.id}.item.json"


def files(workspace: Workspace) -> list[str]:
    return sorted(str(p.relative_to(workspace.root)) for p in workspace.root.rglob("*") if p.parent != workspace.root)


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def kill_while_saving(root: Path, write_then_die: str) -> None:
    """Save in another process that ends at once, without any clean-up, inside `write` or between the last renames."""
    code = f"""
import os, pathlib
from vlm_analysis.workbench.workspace import Workspace
{write_then_die}
Workspace(pathlib.Path({str(root)!r})).save("masks", "killed", write)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 9


DIE_IN_WRITE = """
def write(path):
    path.write_text("half")
    os._exit(9)
"""
DIE_BETWEEN_RENAMES = """
rename = pathlib.Path.rename
def dying(path, target):
    if str(target).endswith(".item.json"):
        os._exit(9)
    return rename(path, target)
pathlib.Path.rename = dying
def write(path):
    path.write_text("whole")
"""


class TestClock:
    def test_what_is_made_last_is_the_newest_though_the_clock_went_back(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime(*times.pop(0), tzinfo=tz)

        times = [(2026, 5, 1), (2026, 4, 1), (2025, 1, 1), (2026, 5, 1), (2026, 6, 1)]
        monkeypatch.setattr("vlm_analysis.workbench.workspace.datetime", Clock)
        made = [workspace.save("masks", f"{number}", text()) for number in range(5)]
        assert [item.name for item in workspace.items("masks")] == ["4", "3", "2", "1", "0"]
        assert workspace.newest("masks") == made[-1]
        assert made[1].created.startswith("2026-04-01")  # the time that the clock told
        assert made[-1].id.startswith("20260601-")

    def test_ids_of_no_time_are_not_followed(self, workspace: Workspace) -> None:
        item = workspace.save("masks", "mine", text())
        for name in ("99999999-999999-ffffffff.json", "99991231-235959-00000000.json", "notes.txt"):
            (item.path.parent / name).touch()
        again = workspace.save("masks", "again", text())
        assert again.id[:4] == item.id[:4]
        assert again.id > item.id


class TestKilled:
    def test_a_kill_in_a_deletion_leaves_nothing_a_day_later(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        item, rename = workspace.save("masks", "mine", text()), Path.rename

        def die(path: Path, target: Path) -> Path:
            if path == item.path:
                raise KeyboardInterrupt
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", die)
            with pytest.raises(KeyboardInterrupt):
                workspace.delete(item)
        assert workspace.items("masks") == []
        assert item.path.exists()
        (part,) = item.path.parent.glob("*.part")
        age(part, PART_AGE_S + 60)
        Workspace(workspace.root)
        assert files(workspace) == []

    def test_a_kill_while_writing_leaves_only_a_part_that_is_tidied_up_a_day_later(self, workspace: Workspace) -> None:
        kill_while_saving(workspace.root, DIE_IN_WRITE)
        (part,) = (workspace.root / "masks").iterdir()
        assert part.suffix == ".part"
        again = Workspace(workspace.root)
        assert (again.items("masks"), again.problems()) == ([], [])
        age(part, PART_AGE_S - 60)
        Workspace(workspace.root)
        assert part.exists(), "another process may still be writing"
        age(part, PART_AGE_S + 60)
        Workspace(workspace.root)
        assert files(workspace) == []

    def test_a_kill_between_the_last_two_renames_is_finished_a_day_later(self, workspace: Workspace) -> None:
        kill_while_saving(workspace.root, DIE_BETWEEN_RENAMES)
        assert Workspace(workspace.root).items("masks") == []
        (part,) = (workspace.root / "masks").glob("*.part")
        age(part, PART_AGE_S + 60)
        (item,) = Workspace(workspace.root).items("masks")
        assert (item.name, item.path.read_text()) == ("killed", "whole")
        assert not part.exists()

    def test_tidying_removes_old_parts_of_any_sort_and_nothing_else(self, workspace: Workspace, tmp_path: Path) -> None:
        item = workspace.save("prompts", "kept", folder)
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "mine").write_text("x")
        (item.path.parent / "file.part").write_text("x")
        folder(item.path.parent / f"{ID}.part")
        (item.path.parent / "link.part").symlink_to(outside)
        for name in ("file.part", f"{ID}.part"):
            age(item.path.parent / name, PART_AGE_S + 60)
        os.utime(item.path.parent / "link.part", (0, 0), follow_symlinks=False)
        age(item.path, PART_AGE_S + 60)
        assert Workspace(workspace.root).items("prompts") == [item]
        assert sorted(p.name for p in item.path.parent.iterdir()) == [item.id, f"{item.id}.item.json"]
        assert (outside / "mine").exists()


def cut(content: str) -> str:
    return content[: len(content) // 2]


def changed(**values: Any) -> Callable[[str], str]:
    return lambda content: json.dumps(json.loads(content) | values)


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            cut,
            lambda content: "",
            lambda content: "\udcff\udcfe",
            lambda content: "[" * 100_000,
            lambda content: "[1]",
            lambda content: content + " " * 300_000,
            changed(schema_version=2),
            changed(kind="prompts"),
            changed(id=ID),
            changed(name=7),
            changed(model=["a"]),
            changed(created="yesterday"),
            changed(details="none"),
            changed(details={"dropped": None}),
        ],
    )
    def test_a_damaged_sidecar_is_reported_and_the_rest_is_listed(
        self, workspace: Workspace, damage: Callable[[str], str]
    ) -> None:
        good, bad = workspace.save("masks", "good", text()), workspace.save("masks", "bad", text())
        sidecar(bad).write_text(damage(sidecar(bad).read_text()), errors="surrogateescape")
        assert workspace.items("masks") == [good]
        assert workspace.find("masks", bad.id) is None
        (problem,) = workspace.problems()
        assert str(sidecar(bad)) in problem
        assert "expected" in problem
        with pytest.raises(WorkspaceError, match="damaged"):
            workspace.rename(bad, "x")
        workspace.delete(bad)
        assert workspace.problems() == []

    def test_a_sidecar_without_its_file_is_reported_and_not_listed(self, workspace: Workspace) -> None:
        item = workspace.save("masks", "m", text())
        item.path.unlink()
        assert workspace.items("masks") == []
        assert workspace.find("masks", item.id) is None
        assert str(item.path) in workspace.problems()[0]

    def test_a_file_without_a_sidecar_is_not_listed(self, workspace: Workspace) -> None:
        item = workspace.save("masks", "m", text())
        sidecar(item).unlink()
        assert (workspace.items("masks"), workspace.problems()) == ([], [])

    def test_listing_opens_no_file_but_sidecars(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        workspace.save("recordings", "r", text())
        read: list[str] = []

        def watched(path: Path, most: int) -> bytes:
            read.append("".join(path.suffixes))
            return read_bytes(path, most)

        monkeypatch.setattr("vlm_analysis.workbench.sidecars.read_bytes", watched)
        monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("another file was opened"))
        assert len(workspace.items("recordings")) == 1
        assert read == [".item.json"]


class TestSpecialFiles:
    @pytest.mark.parametrize("what", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
    def test_a_pipe_a_folder_or_an_endless_file_is_damage_that_can_be_deleted(
        self, workspace: Workspace, what: Callable[[Path], object]
    ) -> None:
        good, bad = workspace.save("masks", "good", text()), workspace.save("masks", "bad", text())
        sidecar(bad).unlink()
        what(sidecar(bad))
        what(sidecar(bad).with_name("odd.item.json"))
        assert workspace.items("masks") == [good]
        damaged = workspace.damaged()
        assert len(damaged) == 2
        for one in damaged:
            workspace.discard(one)
        assert workspace.damaged() == []
        assert files(workspace) == [f"masks/{good.id}.item.json", f"masks/{good.id}.json"]

    @pytest.mark.parametrize("name", ["../x.item.json", "x", "", "/etc/x.item.json"])
    def test_only_what_was_listed_can_be_discarded(self, workspace: Workspace, name: str) -> None:
        with pytest.raises(WorkspaceError, match="expected a saved item"):
            workspace.discard(Damaged("masks", name, ""))

    def test_half_exports_of_killed_processes_are_removed_at_the_next_start(self, workspace: Workspace) -> None:
        exports = workspace.root / "exports"
        for name in (".a.12345678.part", ".b.12345678.part", "kept", ".c.12345678.part"):
            (exports / name).mkdir(parents=True)
            age(exports / name, 60)
        (exports / ".c.12345678.part").rmdir()
        (exports / ".c.12345678.part").symlink_to(exports / "kept")
        with owned(exports / ".b.12345678.part", lambda owner: None):
            age(exports / ".b.12345678.part", 60)
            Workspace(workspace.root)
            assert sorted(path.name for path in exports.iterdir()) == [".b.12345678.part", ".c.12345678.part", "kept"]


class TestTwoProcesses:
    def test_two_workspaces_on_one_root_see_each_others_work(self, workspace: Workspace) -> None:
        other = Workspace(workspace.root)
        mine, theirs = workspace.save("masks", "mine", text()), other.save("masks", "theirs", text())
        assert workspace.items("masks") == other.items("masks") == [theirs, mine]
        other.delete(mine)
        assert workspace.items("masks") == [theirs]

    def test_many_savers_at_once_lose_nothing(self, workspace: Workspace) -> None:
        together = threading.Barrier(4)

        def work(saver: int) -> list[Item]:
            mine = Workspace(workspace.root)
            together.wait(300)
            return [mine.save("masks", f"{saver}-{n}", text(f"{saver}-{n}")) for n in range(15)]

        with ThreadPoolExecutor(4) as pool:
            saved = [item for items in pool.map(work, range(4)) for item in items]
        listed = workspace.items("masks")
        assert {item.id for item in listed} == {item.id for item in saved}
        assert len(listed) == 60
        assert all(item.path.read_text() == item.name for item in listed)

    def test_the_same_moment_and_the_same_chance_still_give_two_ids(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Now(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime(2025, 1, 1, 12, tzinfo=tz)

        chances = iter([5, 5])
        monkeypatch.setattr("vlm_analysis.workbench.workspace.datetime", Now)
        monkeypatch.setattr("vlm_analysis.workbench.ids.secrets.randbelow", lambda limit: next(chances))
        ids = [workspace.save("masks", "m", text()).id for _ in range(2)]
        assert ids == ["20250101-120000-00000005", "20250101-120000-00001005"]

    @pytest.mark.parametrize("step", ["before the sidecar is written", "after the sidecar is written"])
    def test_a_name_given_during_a_deletion_does_not_bring_the_item_back(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        item, really = workspace.save("masks", "m", text()), Path.replace

        def racing(path: Path, target: Path) -> Path:
            if step.startswith("before"):
                workspace.delete(item)
            moved = really(path, target)
            if step.startswith("after"):
                workspace.delete(item)
            return moved

        monkeypatch.setattr(Path, "replace", racing)
        with pytest.raises(WorkspaceError, match="it was deleted"):
            workspace.rename(item, "ghost")
        assert files(workspace) == []

    def test_a_sidecar_put_back_in_the_middle_of_a_deletion_is_removed_too(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        item = workspace.save("masks", "m", text())
        content, really = sidecar(item).read_text(), Path.rename

        def racing(path: Path, target: Path) -> Path:
            sidecar(item).write_text(content)
            return really(path, target)

        monkeypatch.setattr(Path, "rename", racing)
        workspace.delete(item)
        assert files(workspace) == []
