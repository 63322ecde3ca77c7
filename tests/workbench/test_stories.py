"""The demo as a call: what it keeps, and that its report is the page's; stories of version 0.1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from outside import outside_prompts, save_outside_model
from saved import SAVED

from vlm_analysis import (
    Answer,
    Bench,
    Comparison,
    LoadedModel,
    PromptSet,
    Recording,
    answer_of,
    headline,
    load_model,
    open_prompts,
    retention,
)
from vlm_analysis.errors import EvaluationError, WorkspaceError
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.export.document.page import document_html
from vlm_analysis.export.story import open_story, story_sections
from vlm_analysis.export.story_forms import story_text
from vlm_analysis.selection.compared.answer import KEPT, LOST
from vlm_analysis.selection.compared.answerwords import choice_line
from vlm_analysis.workbench.documents import document_for
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.stories import demo, open_saved_story, stories
from vlm_analysis.workbench.workspace import Item, Workspace


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Item]:
    """A workspace in which the demo ran on two prompts of each pack."""
    shelf, seen = Workspace(tmp_path_factory.mktemp("home")), []
    item = demo(ModelSlot(), shelf, lambda *report: seen.append(report), first=2)
    assert seen[0][2].startswith("loading Pocket-VL")
    assert seen[-1][0] == seen[-1][1] > 1
    return shelf, item


def test_the_demo_keeps_all_that_it_made_and_nothing_unfinished(told: tuple[Workspace, Item]) -> None:
    shelf, item = told
    assert shelf.items("comparisons") == stories(shelf) == [item]
    assert isinstance(open_item(item), Comparison)
    for kind in ("prompts", "recordings", "masks", "evaluations"):
        assert shelf.find(kind, item.details[kind]) is not None
    assert shelf.find("prompts", item.details["chosen_on"]).prompts == open_item(item).chosen_on
    assert {tuple(kept.details["dropped"]) for kept in shelf.items("evaluations")} >= {()}
    assert not list((shelf.root / "unfinished").glob("*"))


def test_what_was_kept_opens_as_the_story(told: tuple[Workspace, Item]) -> None:
    shelf, item = told
    story = open_saved_story(shelf, item)
    assert len(story.dense.by_prompt) == 4
    page = document_html(document_for(shelf, item))
    assert headline(answer_of(open_item(item))) in page
    assert "say nothing about large models" in page
    assert page.count("data:image/webp") == len(answer_of(open_item(item)).examples)


def test_the_demo_chooses_on_the_packs_and_reports_on_their_fellows(told: tuple[Workspace, Item]) -> None:
    comparison = open_item(told[1])
    packs = [open_prompts("general")[:2] + open_prompts("math")[:2]]
    packs.append(open_prompts("general-report")[:2] + open_prompts("math-report")[:2])
    assert [comparison.chosen_on, comparison.dense.prompts] == [pack.fingerprint for pack in packs]
    assert comparison.choosing.dense.prompts == packs[0].fingerprint
    assert comparison.n_shared == 0
    answer = answer_of(comparison)
    assert answer.speed is not None
    assert 1 < answer.speed.times < 2
    assert choice_line(answer) == "Chosen on 4 prompts, reported on 4 others."
    assert open_saved_story(*told).shown == (answer.method, answer.edit)


def test_every_budget_has_examples_and_lost_answers_are_what_the_pruned_model_says(
    told: tuple[Workspace, Item], loaded: LoadedModel
) -> None:
    comparison = open_item(told[1])
    prompts = {prompt.id: prompt for prompt in open_prompts("general-report")[:2] + open_prompts("math-report")[:2]}
    shown = [(budget, one) for budget in range(1, 9) for one in answer_of(comparison, budget).examples]
    assert {budget for budget, _ in shown} == set(range(1, 9))
    lost = [pair for pair in shown if pair[1].outcome == LOST]
    kept = [pair for pair in shown if pair[1].outcome == KEPT]
    assert lost
    assert kept
    for budget, one in (lost[-1], kept[0]):
        edit = answer_of(comparison, budget).edit
        assert "".join(piece.text for piece in one.edited) == respond(loaded, prompts[one.id], edit)
        assert "".join(piece.text for piece in one.dense) == respond(loaded, prompts[one.id])


def test_a_story_of_prompts_that_cannot_be_split_says_that_it_flatters(
    small: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    bench = Bench(small, tmp_path)
    one = bench.open(bench.tell_story(few[:1]))
    assert one.choosing is None
    assert choice_line(answer_of(one)) == "Chosen and reported on the same prompts (1), which flatters the numbers."
    four = few[1:5]
    shown = []
    halves = bench.open(bench.tell_story(four, on_partial=shown.append))
    assert halves.choosing is not None
    (before,) = shown
    assert before.responses.empty
    assert before.layer_shares.size == 0
    assert (before.masks, before.choosing.masks) == (halves.masks, halves.choosing.masks)
    assert all((before.scores[name] == halves.scores[name]).all() for name in ("exact_match", "kl_to_dense"))
    assert len(halves.dense.by_prompt) + len(halves.choosing.dense.by_prompt) == len(four)


@pytest.mark.slow  # tests/selection/test_answer.py tells such numbers
def test_a_model_that_matches_no_answer_has_a_true_story(tmp_path: Path) -> None:
    bench = Bench(load_model(save_outside_model("smolvlm", tmp_path / "model")), tmp_path / "home")
    answer = answer_of(bench.open(bench.tell_story(outside_prompts())))
    pruned = sweep_score(bench, answer)
    assert answer.metric != "exact_match"
    assert "it keeps" in headline(answer)
    assert [one.value for one in answer.kept] == pytest.approx(pruned)
    assert {one.outcome for one in answer.examples} <= {LOST, KEPT}
    assert not [one for one in answer.examples if one.outcome == LOST and one.dense == one.edited]


def sweep_score(bench: Bench, answer: Answer) -> list[float]:
    """Return what an answer's mask keeps of the dense model in each domain, evaluated alone."""
    (report,) = (item for item in bench.workspace.items("prompts") if item.prompts == answer.reported_on[0])
    prompts = bench.open(report)
    dense = bench.dense(prompts)
    (alone,) = bench.scores(prompts, [answer.edit])
    return retention(alone, dense, answer.metric).tolist()


def test_a_story_names_the_prompts_that_were_set_aside(told: tuple[Workspace, Item]) -> None:
    shelf, item = told
    story = open_saved_story(shelf, item)
    odd = replace(story, dense=replace(story.dense, set_aside={"odd": "Prompt 'odd' is too flat."}))
    last = story_sections(odd)[-1]
    assert (last.heading, last.text) == (
        "What could not be asked",
        "1 of 5 prompts was set aside:\n\nPrompt 'odd' is too flat.",
    )
    assert "Prompt 'odd' is too flat." in story_text(odd)
    assert "What could not be asked" not in story_text(story)


def test_without_its_recording_a_story_does_not_open(told: tuple[Workspace, Item], tmp_path) -> None:
    _, item = told
    with pytest.raises(WorkspaceError, match="was deleted"):
        open_saved_story(Workspace(tmp_path), item)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_story_of_version_0_1_that_was_cut_short_is_refused_in_words(told, tmp_path: Path, share: float) -> None:
    shelf, item = told
    (path,) = (SAVED / "home" / "stories").glob("*[0-9a-f].json")
    data, recording = path.read_bytes(), open_item(shelf.find("recordings", item.details["recordings"]))
    assert isinstance(recording, Recording)
    (tmp_path / "story.json").write_bytes(data[: int(share * len(data))])
    with pytest.raises(EvaluationError, match="Run the demo again"):
        open_story(tmp_path / "story.json", recording)
