"""Projects: each sees its own items only, the default one is the workspace as it was, and no name leads out of its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from writing import text

from vlm_analysis import Bench
from vlm_analysis.errors import WorkspaceError
from vlm_analysis.workbench.projects import DEFAULT, FOLDER, MOST_LETTERS
from vlm_analysis.workbench.recent import RecentModel, note_folder, note_model, recent_folders, recent_models
from vlm_analysis.workbench.workspace import Workspace

HOSTILE = (
    *("..", ".", "../up", "a/b", "a\\b", "/etc", "C:x", "~", "~root", ".hidden", "-flag", " - ", "dot.", "a\0b"),
    *(
        "con",
        "NUL",
        "com1.txt",
        "Lpt9",
        "com²",
        "a:b",
        "a*b",
        "a?b",
        "<b>",
        "a|b",
        '"a"',
        "$HOME",
        "%s",
        "{0}",
        "[[mask]]",
    ),
    *(
        "\u202eevil",
        "a\u200bb",
        "\ufeffa",
        "\ud800",
        "\u0301a",
        "․․",
        "a" * (MOST_LETTERS + 1),
        "語" * MOST_LETTERS * 2,
    ),
)


def names_in(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()} if folder.is_dir() else set()


def test_a_project_sees_its_own_items_only_and_the_default_one_those_that_were_there(tmp_path: Path) -> None:
    shelf = Workspace(tmp_path)
    before = shelf.save("masks", "before", text())
    study = Workspace(tmp_path, "Study 1")
    own = study.save("masks", "own", text())
    assert Workspace(tmp_path).items("masks") == [before]
    assert Workspace(tmp_path, "Study 1").items("masks") == [own]
    assert study.find("masks", before.id) is None
    assert Workspace(tmp_path, "").items("masks") == Workspace(tmp_path, DEFAULT).items("masks") == [before]
    assert own.path.parent == tmp_path / FOLDER / "Study 1" / "masks"
    assert shelf.projects() == study.projects() == ["Study 1"]


def test_nothing_is_made_before_the_first_save_or_the_beginning(tmp_path: Path) -> None:
    shelf = Workspace(tmp_path, "study")
    assert (shelf.items("masks"), shelf.projects(), names_in(tmp_path)) == ([], [], set())
    assert shelf.begin_project("other").project == "other"
    assert shelf.projects() == ["other"]


def test_a_bench_works_in_a_project(tmp_path: Path) -> None:
    bench = Bench("pocket-vl", tmp_path, project="study")
    assert bench.workspace.root == tmp_path / FOLDER / "study"
    assert Bench("pocket-vl", bench.workspace).workspace.root == bench.workspace.root
    assert Bench("pocket-vl", bench.workspace, project=DEFAULT).workspace.root == tmp_path


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_name_is_refused_and_makes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkspaceError, match="No project can have this name: expected up to 60 letters"):
        Workspace(tmp_path / "home").begin_project(name)
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("name", ["a", "Versuch 3", "研究", "हिंदी", "v0.2-b_c", "9"])
def test_names_of_any_script_are_kept_as_they_are(tmp_path: Path, name: str) -> None:
    assert Workspace(tmp_path).begin_project(name).projects() == [name]


@pytest.mark.parametrize("again", ["STUDY Ä", "  study   ä ", "Study A\u0308"])
def test_names_that_look_the_same_are_one_project(tmp_path: Path, again: str) -> None:
    shelf = Workspace(tmp_path).begin_project("Study Ä")
    assert shelf.begin_project(again).root == shelf.root
    assert shelf.projects() == ["Study Ä"]


def test_what_is_no_project_beside_them_is_not_listed(tmp_path: Path) -> None:
    Workspace(tmp_path).begin_project("study")
    (tmp_path / FOLDER / "file").write_text("")
    (tmp_path / FOLDER / ".git").mkdir()
    os.mkdir(tmp_path / FOLDER / "<b>")
    assert Workspace(tmp_path).projects() == ["study"]


def test_a_workspace_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"Beginning the project 'study' in .*file failed"):
        Workspace(tmp_path / "file").begin_project("study")


def test_recent_models_and_folders_are_offered_in_all_projects(tmp_path: Path) -> None:
    study = Workspace(tmp_path, "study")
    note_model(study, RecentModel("/models/a", "a"))
    note_folder(Workspace(tmp_path), "/data")
    for shelf in (study, Workspace(tmp_path), Workspace(tmp_path, "other")):
        assert ([one.source for one in recent_models(shelf)], recent_folders(shelf)) == (["/models/a"], ["/data"])
