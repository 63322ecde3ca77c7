"""Projects on the pages: chosen and begun in the sidebar, told by the address, and never mixed."""

from __future__ import annotations

import threading

import pytest
from acting import PATIENCE_S, OpenPage, hold_bundled, ran, send, words
from streamlit.testing.v1 import AppTest

from vlm_analysis.progress import Progress
from vlm_analysis.ui.common.jobs import Place
from vlm_analysis.ui.common.session import model_slot, runner, workspace
from vlm_analysis.workbench.shelf import keep, keep_prompts, open_item
from vlm_analysis.workbench.workspace import Item, Workspace

PAGES = ("app.py", *(f"pages/{name}.py" for name in ("2_prompts", "3_similarity", "4_masks", "5_evaluate", "7_export")))
OF_DEFAULT = ("a few", "a recording ·", "five and nine", "5, 9")  # what `stocked` holds is named so
PICK = "project:pick"


def go(at: AppTest, name: str) -> AppTest:
    """Pick a project in the sidebar, or type a new one."""
    box = at.selectbox(key=PICK)
    if name not in box.options:
        box.options.append(name)
    box.set_value(name)
    return ran(at)


def told(at: AppTest) -> str:
    value = at.query_params["project"]
    return value if isinstance(value, str) else value[0]


def lines(at: AppTest) -> list[str]:
    return [line for code in at.code for line in code.value.splitlines()]


def all_words(at: AppTest) -> str:
    options = [option for box in at.main.selectbox for option in box.options]
    return "\n".join([words(at), *options])


@pytest.mark.parametrize("page", PAGES)
def test_a_new_project_shows_nothing_of_the_one_before_and_the_model_stays(stocked: OpenPage, page: str) -> None:
    hold_bundled()
    at = stocked(page)
    before = all_words(at)
    go(at, "study")
    assert not [word for word in OF_DEFAULT if word in all_words(at)], all_words(at)
    assert model_slot().info is not None
    go(at, "default")
    assert [word for word in OF_DEFAULT if word in before] == [word for word in OF_DEFAULT if word in all_words(at)]


def test_what_is_no_name_is_said_and_nothing_changes(stocked: OpenPage) -> None:
    at = go(stocked("pages/2_prompts.py"), "../up")
    assert "No project can have this name: expected up to 60 letters" in at.sidebar.error[0].value.replace("\\", "")
    assert at.selectbox(key=PICK).value == "default"
    assert not ran(at).sidebar.error
    assert workspace().projects() == []


def test_each_project_goes_on_with_the_mask_edited_last_in_it(stocked: OpenPage) -> None:
    hold_bundled()
    at = stocked("app.py").switch_page("pages/4_masks.py")
    send(ran(at), [5])
    shelf = workspace()
    study = shelf.begin_project("study")
    for kind in ("prompts", "recordings"):
        item = shelf.items(kind)[0]
        copy(item, study)
    assert go(at, "study").session_state["mask"] == []
    send(at, [3, 7])
    assert go(at, "default").session_state["mask"] == [5]
    assert go(at, "study").session_state["mask"] == [3, 7]


def copy(item: Item, to: Workspace) -> None:
    keep(to, item.kind, open_item(item), item.name, prompts=item.prompts)


def test_the_address_tells_the_project_where_there_is_a_choice_and_makes_none(stocked: OpenPage) -> None:
    at = ran(stocked("app.py").switch_page("pages/2_prompts.py"))
    assert "project" not in at.query_params
    workspace().begin_project("Study")
    assert told(ran(at)) == "default"
    at.query_params["project"] = "study"
    assert ran(at).session_state["project"] == "Study"
    assert told(at) == "Study"
    at.query_params["project"] = "../up"
    assert "The address names a project that is not here, '../up'" in words(ran(at)).replace("\\", "")
    assert told(at) == "Study"
    for page in PAGES[1:]:  # empty ones too
        at.switch_page(page)
        assert told(ran(at)) == "Study"
    assert workspace().projects() == ["Study"]


def test_the_line_on_the_command_line_names_the_project(stocked: OpenPage) -> None:
    hold_bundled()
    at = stocked("pages/1_model.py")
    assert not any("--project" in line for line in lines(at))
    keep_prompts(workspace().begin_project("my study"), open_item(workspace().items("prompts")[0]), "own")
    assert any("--project 'my study'" in line for line in lines(go(at, "my study")))


def test_a_job_belongs_to_the_project_where_it_was_started(stocked: OpenPage) -> None:
    at, study, recorded = (
        stocked("pages/3_similarity.py"),
        workspace().begin_project("study"),
        workspace().items("recordings")[0],
    )
    go_on = threading.Event()

    def work(_: Progress) -> Item:
        assert go_on.wait(PATIENCE_S)
        copy(recorded, study)
        return study.items("recordings")[0]

    place = Place("Similarity", "pages/3_similarity.py", {"project": "study"}, "study")
    job = runner().submit("record", "Recording", work, origin=place)
    ran(at)
    assert [bar.text for bar in at.get("progress")] == ["Recording: starting"]  # in the list of jobs alone
    assert "Similarity · project study" in words(at)
    go_on.set()
    runner().wait(job, PATIENCE_S)
    ran(at)
    assert at.session_state["chosen:recordings"] == recorded.id
    next(one for one in at.button if (one.key or "").endswith(f"show-{job}")).click()
    assert ran(at).session_state["project"] == "study"
    assert at.session_state["chosen:recordings@study"] == study.items("recordings")[0].id
