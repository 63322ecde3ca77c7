"""Many masks on the Evaluate page: what is asked, what runs, what is left unfinished, and what is shown."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from acting import OpenPage, hold, hold_bundled, ran, wait_for, words
from scanned import made_scan
from streamlit.testing.v1 import AppTest

from vlm_analysis import Cancelled, LoadedModel, PromptSet, evaluate, mask_table
from vlm_analysis.errors import EvaluationError
from vlm_analysis.progress import no_progress
from vlm_analysis.ui.common.session import bench, choose, last_choices, live, workspace
from vlm_analysis.ui.common.work import Work, watched
from vlm_analysis.ui.prompts.promptview import contents
from vlm_analysis.workbench.comparisons import Question, unfinished
from vlm_analysis.workbench.details import MOST_NAMES
from vlm_analysis.workbench.shelf import keep, keep_prompts, open_item
from vlm_analysis.workbench.workspace import Item

PAGE = "pages/5_evaluate.py"


def many(open_page: OpenPage) -> AppTest:
    at = open_page(PAGE)
    at.session_state["evaluate_tab"] = "Many masks"
    return ran(at)


def button(at: AppTest, label: str):
    return next(one for one in at.button if one.label == label)


def question(prompts_id: str, **more) -> Question:
    asked = {"criteria": ("block-influence", "target-aware"), "strategies": ("first-k", "minimum-gap", "random-draw")}
    return Question(prompts_id, prompts_id, **{**asked, "most": 3, "n_draws": 2, **more})


def compare_work(choose: Item, report: Item, asked: Question) -> Work:
    return watched("compare", bench().compare, choose, report, **asked.options)


def test_without_a_model_the_page_says_what_to_do(stocked: OpenPage) -> None:
    at = many(stocked)
    assert "No model is loaded" in words(at)
    assert "Nothing compared yet." in words(at)


def test_numbers_are_those_of_evaluating_each_mask_alone(stocked: OpenPage, small: LoadedModel, few: PromptSet) -> None:
    hold(small)
    (prompts,) = workspace().items("prompts")
    item = compare_work(prompts, prompts, question(prompts.id))(no_progress)
    comparison = open_item(item)
    assert {"Block influence", "Target-aware (math)", "Target-aware (general)", "random"} <= set(
        comparison.ways["method"]
    )
    assert comparison.n_shared == len(few)
    dense = evaluate(small, few, batch_size=32)
    for place in (0, len(comparison.masks) // 2, len(comparison.masks) - 1):
        alone = evaluate(small, few, comparison.masks[place], reference=dense, batch_size=32).by_prompt
        found = comparison.evaluation(place).by_prompt
        assert found["exact_match"].tolist() == alone["exact_match"].tolist()
        assert found["answer_nll"].tolist() == pytest.approx(alone["answer_nll"].tolist(), abs=1e-5)
    at = many(stocked)
    said = words(at)
    assert "6 of the 6 prompts reported on were also used to choose the masks" in said
    assert "Where the ranking matters" in said
    assert "too few prompts that the dense model answers" in said
    assert "Verdicts need two methods at least, and 5 groups" in said
    table = next(frame.value for frame in at.dataframe if "methods" in frame.value.columns)
    assert len(table) == len(mask_table(comparison))
    at.session_state[f"compare_metric:{item.id}"] = "token_agreement"
    assert "of token agreement on the worst domain" in words(ran(at))
    table = next(frame.value for frame in at.dataframe if "methods" in frame.value.columns)
    kept = mask_table(comparison, "token_agreement").loc[table.index]
    assert (
        table["worst"].tolist() == kept["worst"].tolist() != mask_table(comparison).loc[table.index]["worst"].tolist()
    )
    assert not live()
    assert not list((workspace().root / "unfinished").glob("*"))


def test_vision_edits_of_a_scan_compete_in_the_number_that_is_asked_for(
    stocked: OpenPage, small: LoadedModel, few: PromptSet
) -> None:
    hold(small)
    at = many(stocked)
    box = at.number_input(key="compare_vision")
    box.set_value(2)
    said = words(ran(at)).replace("\\", "")
    assert "a few is scanned first" in said
    assert "scan vision tokens, where that was not done yet" in said
    keep(workspace(), "scans", made_scan(small.info, few), "made up")
    said = words(ran(at)).replace("\\", "")
    assert "of those that keep 90% of the answers" in said
    assert "absent 0-7 (" in said
    assert "scan vision tokens" not in said
    assert any("--vision 2" in code.value for code in at.code)
    (masks,) = re.findall(r"Up to (\d+) masks on 6 prompts, up to", said)
    at.number_input(key="compare_vision").set_value(0)
    (alone,) = re.findall(r"Up to (\d+) masks on 6 prompts, up to", words(ran(at)))
    assert int(masks) == int(alone) + 2 * (1 + int(alone))
    assert not any("--vision" in code.value for code in at.code)


def test_what_was_measured_is_not_measured_again(stocked: OpenPage, small: LoadedModel) -> None:
    hold(small)
    (prompts,) = workspace().items("prompts")
    compare_work(prompts, prompts, question(prompts.id))(no_progress)
    totals: list[tuple[int, str]] = []
    more = question(prompts.id, criteria=("block-influence", "target-aware", "linear-cka"))
    compare_work(prompts, prompts, more)(lambda done, total, message: totals.append((total, message)))
    runs = [total for total, message in totals if message.startswith("part")]
    assert not runs or max(runs) <= 6  # at most the new criterion's masks, each in one part


def test_a_cancelled_comparison_is_offered_again_and_finished(stocked: OpenPage, small: LoadedModel) -> None:
    hold(small)
    (prompts,) = workspace().items("prompts")

    def stop(done: int, total: int, message: str) -> None:
        if message.startswith("part") and done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        compare_work(prompts, prompts, question(prompts.id))(stop)
    (left,) = unfinished(workspace())
    assert left.question == question(prompts.id)
    at = many(stocked)
    assert "Unfinished: masks on" in words(at)
    button(at, "Go on").click()
    ran(at)
    wait_for(at, "Where the ranking matters")
    assert len(workspace().items("comparisons")) == 1
    assert "Unfinished" not in words(at)


def test_an_unfinished_comparison_of_another_model_asks_for_it_and_can_be_forgotten(stocked: OpenPage) -> None:
    hold_bundled()
    (prompts,) = workspace().items("prompts")

    def stop(done: int, total: int, message: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        compare_work(prompts, prompts, question(prompts.id))(stop)
    (left,) = unfinished(workspace())
    told = left.folder / "asked.json"
    told.write_text(told.read_text("utf-8").replace(left.model, "0" * 64), "utf-8")
    at = many(stocked)
    assert "Unfinished" not in words(at)  # another model's work is a choice
    next(box for box in at.selectbox if box.label == "Work of").set_value("0" * 64)
    assert "Load its model to go on." in words(ran(at))
    assert not [one for one in at.button if one.label == "Go on"]
    button(at, "Forget it").click()
    assert "Unfinished" not in words(ran(at))


HOSTILE = [
    {"criteria": ["none"]},
    {"criteria": [["first-k"]]},
    {"criteria": ["block-influence"] * 2},
    {"criteria": "random"},
    {"criteria": 1},
    {"strategies": ["none"]},
    {"strategies": [None]},
    {"most": 0},
    {"most": 10_001},
    {"most": 1e300},
    {"most": True},
    {"most": "3"},
    {"n_draws": 101},
    {"n_draws": 0},
    {"n_draws": None},
    {"max_mib": 0},
    {"max_mib": (1 << 20) + 1},
    {"max_mib": float("nan")},
    {"unprotect": 1},
    {"choose": 1},
    {"report": None},
    {"report": ["a"]},
]


def note(**changed: object) -> dict:
    return {"model": "0" * 64, "model_name": "m", "name": "n", "question": asdict(question("p")), **changed}


def put_note(text: str, folder: str = "deadbeef") -> Path:
    path: Path = workspace().root / "unfinished" / folder / "asked.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, "utf-8")
    return path


def test_a_note_that_asks_what_cannot_be_asked_is_passed_over(open_page: OpenPage) -> None:
    path = put_note(json.dumps(note()))
    assert [found.question for found in unfinished(workspace())] == [question("p")]
    for changed in HOSTILE:
        path.write_text(json.dumps(note(question=asdict(question("p")) | changed)), "utf-8")
        assert list(unfinished(workspace())) == [], changed


DAMAGED = ["", "{", "[]", '{"model": 1}', '{"question": {"criteria": ["none"]}}']
MISNAMED = [
    {"model": 1},
    {"model": "**bold**"},
    {"name": ["n"]},
    {"name": "half \ud800"},
    {"model_name": None},
    {"question": []},
    {"question": asdict(question("p")) | {"more": 1}},
]


def test_damaged_notes_of_unfinished_comparisons_and_those_with_other_names_are_passed_over(stocked: OpenPage) -> None:
    for number, text in enumerate([*DAMAGED, *(json.dumps(note(**changed)) for changed in MISNAMED)]):
        path = put_note(text, f"damaged {number}")
        assert list(unfinished(workspace())) == [], text
        assert path.exists()
    assert "Unfinished" not in words(many(stocked))


def test_a_note_nested_too_deep_is_passed_over_and_hides_no_other(stocked: OpenPage) -> None:
    put_note("[" * 100_000)
    put_note(json.dumps(note()), "feed")
    assert [found.folder.name for found in unfinished(workspace())] == ["feed"]


@pytest.mark.parametrize("changed", [one for one in HOSTILE if "criteria" not in one], ids=str)
def test_a_question_that_cannot_be_asked_is_refused(changed: dict) -> None:
    with pytest.raises(EvaluationError, match=r"cannot start: expected .*, got .*\. Choose again\."):
        replace(
            question("p"), **{key: tuple(value) if isinstance(value, list) else value for key, value in changed.items()}
        )


def test_a_comparison_that_ended_leaves_no_note_of_its_question_under_any_name(stocked: OpenPage) -> None:
    hold_bundled()
    (prompts,) = workspace().items("prompts")

    def stop(done: int, total: int, message: str) -> None:
        raise Cancelled

    asked = question(prompts.id, criteria=("block-influence",), most=1)
    for name in ("before", "after"):
        named = replace(prompts, name=name)
        with pytest.raises(Cancelled):
            compare_work(named, named, asked)(stop)
    (left,) = unfinished(workspace())
    assert left.name == "after"
    put_note((left.folder / "asked.json").read_text("utf-8"), "an older name")
    other = json.loads((left.folder / "asked.json").read_text("utf-8"))
    other["question"]["most"] = 2
    put_note(json.dumps(other), "another question")
    compare_work(prompts, prompts, asked)(no_progress)
    assert [found.folder.name for found in unfinished(workspace())] == ["another question"]


def test_the_same_prompts_for_both_are_warned_of_and_split_on_a_click(stocked: OpenPage) -> None:
    hold_bundled()
    at = many(stocked)
    assert "the report flatters them" in words(at)
    button(at, "Split in halves").click()
    ran(at)
    assert "the report flatters them" not in words(at)
    names = {item.name for item in workspace().items("prompts")}
    assert {name[-6:] for name in names if "half" in name} == {"half A", "half B"}
    (one, other) = (open_item(item) for item in workspace().items("prompts") if "half" in item.name)
    assert not {p.key for p in one} & {p.key for p in other}


def test_nothing_to_compare_cannot_be_started(stocked: OpenPage) -> None:
    hold_bundled()
    at = many(stocked)
    next(box for box in at.multiselect if box.label == "Strategies").set_value([])
    ran(at)
    assert button(at, "Compare masks").disabled


def test_domains_count_where_the_description_does_not_name_them_all(stocked: OpenPage, few: PromptSet) -> None:
    hold_bundled()
    names = [f"domain {number}" for number in range(MOST_NAMES + 20)]
    item = keep_prompts(workspace(), PromptSet(replace(few[0], id=name, domain=name) for name in names), "many domains")
    choose("prompts", item)
    at = many(stocked)
    at.session_state[f"compare_criteria:{False}"] = ["target-aware"]
    at.session_state["compare_strategies"] = ["first-k"]
    at.session_state["compare_most:16"] = 1
    assert f"Up to {len(names)} masks on {len(names)} prompts" in words(ran(at))
    assert contents(item) == (len(names), f"{', '.join(names[:MOST_NAMES])} and 20 more")


def picked(at: AppTest) -> tuple[str, ...]:
    return tuple(at.session_state[key] for key in ("compare_choose", "compare_report"))


def test_the_form_follows_the_prompts_in_use_and_else_keeps_what_was_chosen(stocked: OpenPage, few: PromptSet) -> None:
    hold_bundled()
    (one,) = workspace().items("prompts")
    other = keep_prompts(workspace(), PromptSet(list(few)[:4]), "fewer")
    choose_in_use(one)
    at = many(stocked)
    assert picked(at) == (one.id, one.id)
    box = next(box for box in at.selectbox if box.label == "Choose masks on")
    box.set_value(other.id)
    assert picked(ran(at)) == picked(ran(at)) == (other.id, one.id)
    third = keep_prompts(workspace(), PromptSet(list(few)[2:]), "third")
    assert picked(ran(at)) == (other.id, one.id)  # saved, but not taken into use
    at.session_state["chosen:prompts"] = third.id
    assert picked(ran(at)) == (third.id, third.id)


def test_the_halves_are_still_chosen_after_a_refresh_until_other_prompts_are_in_use(
    stocked: OpenPage, few: PromptSet
) -> None:
    hold_bundled()
    (whole,) = workspace().items("prompts")
    at = many(stocked)
    button(at, "Split in halves").click()
    halves = picked(ran(at))
    assert whole.id not in halves
    fresh = many(stocked)
    assert picked(fresh) == halves
    assert "the report flatters them" not in words(fresh)
    other = keep_prompts(workspace(), PromptSet(list(few)[:4]), "fewer")
    choose_in_use(other)
    assert picked(many(stocked)) == (other.id, other.id)
    assert picked(ran(fresh)) == halves


def choose_in_use(item) -> None:
    """Take prompts into use as another session would."""
    last_choices()["prompts"] = item.id


def test_packs_are_chosen_on_and_their_fellows_reported_on(stocked: OpenPage, few: PromptSet) -> None:
    hold_bundled()
    stocked(PAGE)
    packs = {"general, math": few[:2], "general-report, math-report": few[2:]}
    chosen, reported = (keep_prompts(workspace(), part, f"Bundled packs: {names}").id for names, part in packs.items())
    last_choices()["prompts"] = reported
    at = many(stocked)
    assert picked(at) == (chosen, reported)
    assert "the report flatters them" not in words(at)


def test_halves_of_which_one_was_deleted_are_not_chosen_after_a_refresh(stocked: OpenPage) -> None:
    hold_bundled()
    (whole,) = workspace().items("prompts")
    choose_in_use(whole)
    at = many(stocked)
    button(at, "Split in halves").click()
    halves = picked(ran(at))
    workspace().delete(workspace().find("prompts", halves[0]))
    assert picked(many(stocked)) == (whole.id, whole.id)
    assert picked(ran(at)) == (whole.id, halves[1])


def test_it_is_said_that_the_masks_are_being_made(stocked: OpenPage) -> None:
    hold_bundled()
    (prompts,) = workspace().items("prompts")
    said: list[str] = []

    def listen(done: int, total: int, message: str) -> None:
        said.append(message)
        if message == "making the masks":
            raise Cancelled

    with pytest.raises(Cancelled):
        compare_work(prompts, prompts, question(prompts.id))(listen)
    assert said == ["making the masks"]  # the recording is there already


def test_every_mask_is_recovered_too_where_others_are_reported_on(
    stocked: OpenPage, small: LoadedModel, few: PromptSet
) -> None:
    hold(small)
    ids = {item.id for item in workspace().items("prompts")}
    ids |= {keep_prompts(workspace(), PromptSet(list(few)[:4]), "fewer").id}
    at = many(stocked)
    assert "Recover every mask too" not in [one.label for one in at.multiselect]
    (other,) = ids - {at.session_state["compare_choose"]}
    at.session_state["compare_report"], at.session_state["compare_preset"] = other, True
    ran(at)
    one_by_one = int(words(at).split("Up to ")[1].split()[0])
    box = next(one for one in at.multiselect if one.label == "Recover every mask too")
    assert box.options[:3] == ["ridge", "subspace", "scale"]
    box.select("ridge").select("scale+small")
    said = words(ran(at))
    assert f"Up to {3 * one_by_one} masks" in said
    (line,) = [code.value for code in at.code if code.value.startswith("strata sweep")]
    assert "--recover ridge --recover scale+small" in line
