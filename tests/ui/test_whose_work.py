"""Work of another model than the loaded one: pages show none of it until it is chosen, and then they name its model."""

from __future__ import annotations

import pytest
from acting import OpenPage, hold, hold_bundled, ran, send, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import LoadedModel, PruneMask, apply_edit

PAGES = ("app.py", *(f"pages/{name}.py" for name in ("3_similarity", "4_masks", "5_evaluate", "7_export")))
TABS = {
    "pages/5_evaluate.py": (
        "evaluate_tab",
        ("One mask", "Many masks", "Get back what was lost", "Ask both", "Cost", "Claims"),
    )
}
OF_BUNDLED = ("pocket-vl", "a recording ·", "five and nine", "5, 9", "dense on")  # what `stocked` holds is named so


@pytest.fixture(scope="module")
def other(loaded: LoadedModel) -> LoadedModel:
    """A model of other layers than the bundled one."""
    return LoadedModel(apply_edit(loaded.model, PruneMask(16, range(4, 15))), loaded.processor, "small", "made here")


def all_words(at: AppTest) -> str:
    """Return the texts, the choices and the numbers of the page, without its sidebar and the forms of work to come."""
    main = at.main
    texts = [str(one.value) for kind in ("markdown", "caption", "text", "warning", "info") for one in main.get(kind)]
    texts += [option for box in main.selectbox for option in box.options]
    return "\n".join(texts + [f"{one.label} {one.value}" for one in main.metric])


@pytest.mark.parametrize("page", PAGES)
def test_after_a_switch_no_page_shows_anything_of_the_model_before(
    stocked: OpenPage, other: LoadedModel, page: str
) -> None:
    hold_bundled()
    at = stocked(page)
    hold(other)
    key, tabs = TABS.get(page, ("", ("",)))
    for tab in tabs:
        if key:
            at.session_state[key] = tab
        ran(at)
        assert not [word for word in OF_BUNDLED if word in all_words(at)], all_words(at)
        assert not at.main.get("plotly_chart")


def test_the_work_of_another_model_is_a_choice_and_named_on_every_page(stocked: OpenPage, other: LoadedModel) -> None:
    hold(other)
    at = stocked("app.py")
    box = next(box for box in at.sidebar.selectbox if box.label == "Work of")
    assert box.options[0] == f"{other.info.name}, loaded"
    box.select_index(1)
    ran(at)
    for page in PAGES:
        at.switch_page(page)
        ran(at)
        assert "You look at the work of **pocket\\-vl**" in words(at)
    assert "five and nine" in words(at) + str(at.selectbox(key="pick:mask").options)


def test_a_mask_in_the_editor_is_not_that_of_the_model_loaded_next(stocked: OpenPage, other: LoadedModel) -> None:
    hold_bundled()
    at = stocked("app.py")
    at.switch_page("pages/4_masks.py")
    ran(at)
    assert at.session_state["mask_model"].n_layers == 16
    send(at, [5])
    hold(other)
    at.switch_page("pages/5_evaluate.py")
    ran(at)
    assert at.session_state["mask_model"].fingerprint == other.fingerprint
    assert at.session_state["mask"] == []
    hold_bundled()
    assert ran(at).session_state["mask"] == [5]


def test_a_label_that_the_server_no_longer_knows_chooses_nothing(stocked: OpenPage) -> None:
    hold_bundled()
    at = stocked("pages/5_evaluate.py")
    box = at.selectbox(key="pick:evaluations")
    before = box.value
    box.options.append("the label of before a rename")
    box.select_index(len(box.options) - 1)
    ran(at)
    assert at.selectbox(key="pick:evaluations").value == before
