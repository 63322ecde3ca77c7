"""The tab "Get back what was lost": what it says where something is missing, what it asks for, and a ledger on screen."""

from __future__ import annotations

from typing import Any

import pytest
from acting import OpenPage, chart, ended, finish, hold, hold_bundled, press, put, ran, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import Cancelled, Ledger, LoadedModel, PromptSet, PruneMask
from vlm_analysis.ui.common.session import bench, model_slot, opened, workspace
from vlm_analysis.workbench import ledgers
from vlm_analysis.workbench.shelf import keep_mask, keep_prompts

PAGE = "pages/5_evaluate.py"
TAB = "Get back what was lost"
BUTTON = "Get it back"


def tab(at: AppTest) -> AppTest:
    at.session_state["evaluate_tab"] = TAB
    return ran(at)


def button(at: AppTest, label: str = BUTTON) -> Any:
    return next(button for button in at.button if button.label == label)


def said(at: AppTest) -> str:
    return words(at).replace("\\", "").replace("\u2060", "")


@pytest.fixture
def two_sets(open_page: OpenPage, small: LoadedModel, packs: PromptSet) -> tuple[OpenPage, str, str]:
    """A model of eight layers with a mask, prompts to learn on and others to report on, by their ids."""
    open_page(PAGE)
    hold(small)
    learn = keep_prompts(workspace(), packs[:3] + packs[45:48], "to learn")
    report = keep_prompts(workspace(), packs[10:12] + packs[60:62], "to report")
    keep_mask(workspace(), PruneMask(8, (3, 4), name="three and four", model=small.info))
    return open_page, learn.id, report.id


def asked(two_sets: tuple[OpenPage, str, str], **choices: Any) -> AppTest:
    page, learn, report = two_sets
    return put(tab(page(PAGE)), **{"recover_learn": learn, "recover_report": report, **choices})


def test_without_a_mask_or_a_model_it_names_the_next_step(open_page: OpenPage) -> None:
    assert "There is no mask to evaluate" in words(tab(open_page(PAGE)))
    keep_mask(workspace(), PruneMask(16, (5, 9), name="mine"))
    at = tab(open_page(PAGE))
    assert "No model is loaded" in words(at)
    assert BUTTON not in [one.label for one in at.button]
    assert "Nothing was given back yet." in words(at)


def test_the_bundled_model_begins_with_the_packs_and_their_fellows(stocked: OpenPage) -> None:
    hold_bundled()
    at = tab(stocked(PAGE))
    assert [at.selectbox(key=key).value for key in ("recover_learn", "recover_report")] == ["packs", "reports"]
    assert "3 models: dense, cut, ridge · About " in said(at)
    assert not button(at).disabled
    assert "--how ridge --report general-report,math-report" in at.code[-1].value
    put(at, recover_tuning="small")
    assert "and the dense one tuned alike" in said(at)
    assert "Tuning takes " in said(at)


def test_a_ledger_is_measured_and_shown_and_its_edit_can_be_used(two_sets: tuple[OpenPage, str, str]) -> None:
    at = asked(two_sets, recover_repairs=["scale", "ridge"])
    assert "4 models: dense, cut, scale, ridge" in said(at)
    press(at, BUTTON)
    finish("recover")
    at = wait_for(at, "The recovered model")
    (item,) = workspace().items("ledgers")
    ledger: Ledger = opened(item)
    assert [row.title for row in ledger.rows] == ["dense", "cut", "repaired (scale)", "repaired (ridge)"]
    assert "Without 2 layers of 8 the model keeps" in said(at)
    assert "Measured on 4 prompts that nothing was learnt on; learnt on 6 others." in said(at)
    assert [one["name"] for one in chart(at)["data"]] == ["cut", "repaired (scale)", "repaired (ridge)"]
    assert "came back; " in said(at)
    press(at, "Evaluate it")
    assert at.session_state["evaluate_tab"] == "One mask"
    assert at.session_state["pick:mask"] in [one.id for one in workspace().items("masks") if "repaired" in one.name]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"recover_learn": "same"}, "These are the same prompts"),
        ({"recover_learn": "one", "recover_tuning": "small"}, "expected two groups or more"),
        ({"recover_learn": "overlap"}, "expected others than it is learnt on, got 1 of 4"),
        ({"recover_repairs": []}, ""),
    ],
)
def test_bad_input_is_said_before_anything_runs(
    two_sets: tuple[OpenPage, str, str], packs: PromptSet, choices: dict[str, Any], message: str
) -> None:
    sets = {
        "same": two_sets[2],
        "one": keep_prompts(workspace(), packs[:1], "one").id,
        "overlap": keep_prompts(workspace(), packs[8:11], "overlap").id,
    }
    at = asked(
        two_sets, **{key: sets.get(value, value) if isinstance(value, str) else value for key, value in choices.items()}
    )
    assert message in said(at)
    assert button(at).disabled


def test_a_quantised_model_is_refused_in_one_message(
    two_sets: tuple[OpenPage, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModel, "quantiser", "torchao")
    at = asked(two_sets, recover_tuning="small")
    assert [error.value.replace("\\", "") for error in at.error] == [
        "An edit of small cannot be repaired: expected weights of numbers, got ones quantised with torchao. Load the original."
    ]
    assert button(at).disabled


def test_a_cancelled_one_says_what_is_kept(
    two_sets: tuple[OpenPage, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise Cancelled

    monkeypatch.setattr(ledgers, "take_step", stop)
    at = press(asked(two_sets), BUTTON)
    assert ended("recover").status == "cancelled"
    assert "What was learnt is kept among the saved masks" in said(ran(at))


def test_a_saved_ledger_opens_without_the_model(two_sets: tuple[OpenPage, str, str], packs: PromptSet) -> None:
    bench().measure_recovery(PruneMask(8, (3, 4)), packs[:3], packs[10:12], ["scale"])
    model_slot().unload()
    at = tab(two_sets[0](PAGE))
    assert "Without 2 layers of 8 the model keeps" in said(at)
    assert BUTTON not in [one.label for one in at.button]
