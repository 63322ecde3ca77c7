"""The Bench: the flow with memory gives the library's numbers, measures nothing twice, and goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import (
    Bench,
    Cancelled,
    LoadedModel,
    Objective,
    PromptSet,
    PruneMask,
    compare_masks,
    evaluate,
    greedy,
    many_masks,
    read_damage,
    record,
    score_layers,
    stream_both,
    sweep,
)
from vlm_analysis.errors import MaskError, ModelError
from vlm_analysis.evaluation.run import prepared
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.models.inputs import EncodedPrompts
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

MASK = PruneMask(8, (3, 5), name="three and five")
pytestmark = pytest.mark.usefixtures("_short_timings")
EDITS = [MASK, PruneMask(8, (4,)), PruneMask(8, (4, 5))]


@pytest.fixture
def home(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


@pytest.fixture
def bench(small: LoadedModel, home: Workspace) -> Bench:
    return Bench(small, home)


@contextmanager
def passes(loaded: LoadedModel) -> Iterator[list[int]]:
    """Count the passes over the first decoder layer's inputs, of views too: they share the embedding."""
    seen: list[int] = []
    hook = loaded.model.get_input_embeddings().register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        yield seen
    finally:
        hook.remove()


def stop_after(number: int, begins: str) -> Progress:
    """Return a progress that cancels at its `number`-th report that begins so."""
    seen = []

    def report(done: int, total: int, message: str) -> None:
        if message.startswith(begins):
            seen.append(done)
            if len(seen) == number:
                raise Cancelled

    return report


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def leave_one_out(loaded: LoadedModel) -> list[PruneMask]:
    return [PruneMask(8, ()), *(PruneMask(8, (layer,)) for layer in range(loaded.n_layers))]


class TestNumbers:
    def test_a_recording_is_the_librarys(self, bench: Bench, small: LoadedModel, few: PromptSet) -> None:
        found, plain = bench.recording(few), record(small, few)
        assert found.keys == plain.keys
        assert found.rows.tobytes() == plain.rows.tobytes()

    def test_evaluations_are_the_librarys_each_mask_alone(
        self, bench: Bench, small: LoadedModel, few: PromptSet
    ) -> None:
        dense = evaluate(small, few)
        same(bench.dense(few).by_prompt, dense.by_prompt)
        for found, edit in zip(bench.scores(few, EDITS), EDITS, strict=True):
            same(found.by_prompt, evaluate(small, few, edit, reference=dense).by_prompt)
        item = bench.evaluate(few, MASK, responses=True)
        assert item.name.startswith("three and five on 6 prompts")
        same(
            bench.open(item).by_prompt,
            evaluate(small, few, MASK, reference=dense, responses=True).by_prompt,
        )

    def test_damage_is_the_librarys(self, bench: Bench, small: LoadedModel, few: PromptSet) -> None:
        plain = read_damage(list(sweep(small, few, leave_one_out(small))), small.info)
        found = bench.damage(few)
        for metric, values in plain.values.items():
            np.testing.assert_array_equal(found.values[metric], values)

    def test_a_search_finds_the_librarys_mask(self, bench: Bench, small: LoadedModel, few: PromptSet) -> None:
        item = bench.search(few, "greedy", 2, Objective("answer_nll"))
        plain = greedy(
            lambda masks: list(sweep(small, few, masks)),
            2,
            n_layers=8,
            locks=small.locks,
            objective=Objective("answer_nll"),
        )
        assert bench.open(item) == plain
        assert bench.open(item).provenance["steps"] == plain.provenance["steps"]

    def test_a_comparison_is_the_librarys(self, bench: Bench, small: LoadedModel, few: PromptSet) -> None:
        seen: list[object] = []
        asked = {"criteria": ("block-influence", "damage-kl"), "strategies": ("first-k", "minimum-gap")}
        made = bench.open(bench.compare(few, most=2, **asked, on_partial=seen.append))
        recording, damage = record(small, few), bench.damage(few)
        ways, missing = many_masks(recording, range(1, 3), **asked, damage=damage, locks=small.locks)
        plain = compare_masks(small, few, ways, recording=recording, left_out=missing)
        assert made.masks == plain.masks
        for metric, values in plain.scores.items():
            np.testing.assert_array_equal(made.scores[metric], values)
        assert seen

    def test_both_models_answer_as_they_do_alone(self, bench: Bench, small: LoadedModel, few: PromptSet) -> None:
        steps: list[object] = []
        answered = bench.ask(few[0], MASK, on_partial=steps.append)
        assert (answered.dense, answered.pruned) == (respond(small, few[0]), respond(small, few[0], MASK))
        assert len(steps) == len(list(stream_both(small, few[0], MASK)))
        assert bench.given(few[0])[1]["vision"] == 16

    @pytest.mark.usefixtures("_proved_here")
    def test_an_export_tells_what_the_workspace_knows(
        self, loaded: LoadedModel, home: Workspace, few: PromptSet, tmp_path: Path
    ) -> None:
        bench, mask = Bench(loaded, home), PruneMask(16, (5, 9))
        bench.evaluate(few[:1], mask)
        manifest = bench.export(mask, tmp_path / "pruned", probe=few[:1])
        assert manifest.verified
        assert "| retention |" in (tmp_path / "pruned" / "README.md").read_text("utf-8")


ASKED: dict[str, Callable[[Bench, PromptSet], object]] = {
    "recording": lambda bench, few: bench.recording(few),
    "record": lambda bench, few: bench.record(few),
    "dense": lambda bench, few: bench.dense(few, responses=True),
    "scores": lambda bench, few: bench.scores(few, EDITS),
    "evaluate": lambda bench, few: bench.evaluate(few, MASK, responses=True),
    "damage": lambda bench, few: bench.damage(few),
    "measure_damage": lambda bench, few: bench.measure_damage(few),
    "search": lambda bench, few: bench.search(few, "greedy", 1),
    "cost": lambda bench, few: bench.cost(few[:1], MASK, rounds=1),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_known_runs_no_prompt_and_another_bench_on_the_workspace_knows_it_too(
    bench: Bench, small: LoadedModel, few: PromptSet, home: Workspace, asked: str
) -> None:
    with passes(small) as seen:
        ASKED[asked](bench, few)
        assert seen
        seen.clear()
        ASKED[asked](bench, few)
        ASKED[asked](Bench(small, home.root), few)
        assert not seen
    assert len([item for item in home.items("prompts") if item.prompts == few.fingerprint]) <= 1


def test_a_comparison_makes_its_prompts_ready_once(
    bench: Bench, few: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(prepared, "EncodedPrompts", lambda *a, **k: made.append("ready") or EncodedPrompts(*a, **k))
    bench.compare(few, criteria=("damage-kl",), strategies=("first-k",), most=1)
    assert made == ["ready"], "the dense model, the damage of each layer and the masks are scored on the same inputs"
    bench.evaluate(few, MASK)
    assert len(made) == 2, "the next job makes its own"


def test_prompts_that_a_reference_lacked_are_made_ready_again(
    small: LoadedModel, few: PromptSet, home: Workspace
) -> None:
    desk, dense = Desk(ModelSlot.holding(small), home, small.fingerprint), evaluate(small, few)
    lacking = replace(dense, by_prompt=dense.by_prompt.iloc[1:].reset_index(drop=True))
    assert set(desk.ready(few, lacking, no_progress).set_aside) == {few[0].id}
    work = desk.ready(few, None, no_progress)
    assert not work.set_aside
    assert desk.ready(few, dense, no_progress) is work
    assert desk.ready(few[:2], None, no_progress) is not work


def test_a_second_comparison_runs_no_mask(bench: Bench, few: PromptSet) -> None:
    asked = {"criteria": ("block-influence",), "strategies": ("first-k",), "most": 2}
    bench.compare(few, **asked)
    said: list[str] = []
    bench.compare(few, **asked, on_progress=lambda done, total, message: said.append(message))
    assert not [message for message in said if message.startswith(("part", "recording", "dense model"))]


def test_answers_of_the_models_own_are_written_again_by_each_loaded_model(
    bench: Bench, small: LoadedModel, few: PromptSet, home: Workspace
) -> None:
    """A saved dense evaluation may come from another machine, whose model answered otherwise."""
    from dataclasses import replace

    bare = PromptSet(replace(prompt, answer=None) for prompt in few[:2])
    first = bench.scores(bare, [MASK])[0]
    with passes(small) as seen:
        again = Bench(small, home).scores(bare, [MASK])[0]
    assert seen
    same(first.by_prompt, again.by_prompt)


class TestGoingOn:
    def test_a_cancelled_recording_runs_only_what_is_missing(
        self, bench: Bench, small: LoadedModel, few: PromptSet, home: Workspace
    ) -> None:
        def stop(done: int, total: int, message: str) -> None:
            if done == 4:
                raise Cancelled

        with pytest.raises(Cancelled):
            bench.recording(few, on_progress=stop)
        with passes(small) as seen:
            found = Bench(small, home).recording(few)
        assert len(seen) == 2
        assert found.rows.tobytes() == record(small, few).rows.tobytes()
        assert not list((home.root / "unfinished").glob("*"))

    def test_cancelled_scores_go_on(self, bench: Bench, small: LoadedModel, few: PromptSet, home: Workspace) -> None:
        with pytest.raises(Cancelled):
            bench.scores(few, EDITS, on_progress=stop_after(3, "part"))
        left: list[int] = []

        def count(done: int, total: int, message: str) -> None:
            left.extend([total] if message.startswith("part") else [])

        Bench(small, home).scores(few, EDITS, on_progress=count)
        assert set(left) == {1}

    def test_a_cancelled_search_goes_on(self, bench: Bench, few: PromptSet) -> None:
        with pytest.raises(Cancelled):
            bench.search(few, "greedy", 2, on_progress=stop_after(1, "step 2"))
        said: list[str] = []
        bench.search(few, "greedy", 2, on_progress=lambda done, total, message: said.append(message))
        assert not [message for message in said if message.startswith("step 1 of 2: part")]


class TestTheModel:
    def test_a_named_model_is_loaded_when_it_is_needed(self, home: Workspace, loaded: LoadedModel) -> None:
        bench, said = Bench("pocket-vl", home), []
        assert bench.loaded(on_progress=lambda *report: said.append(report)).fingerprint == loaded.fingerprint
        assert said

    def test_another_model_in_its_place_is_refused(self, home: Workspace, few: PromptSet) -> None:
        slot = ModelSlot()
        slot.load("pocket-vl", {}, no_progress)
        bench = Bench(slot, home)
        slot.unload()
        with pytest.raises(ModelError, match="no longer loaded"):
            bench.recording(few)
        assert not home.items("prompts")

    @pytest.mark.slow
    def test_the_story_of_a_borrowed_model_is_told_and_the_model_stays_open(
        self, bench: Bench, small: LoadedModel, few: PromptSet
    ) -> None:
        made = bench.tell_story(few[:1] + few[3:4])
        assert bench.story(made).dense.model.fingerprint == small.fingerprint
        assert bench.open(made).dense.prompts == bench.story(made).dense.prompts
        slot = ModelSlot.holding(small)
        slot.unload()
        assert small.model is not None
        assert score_layers(record(small, few), "block-influence").order

    def test_an_unknown_search_is_refused_by_name(self, bench: Bench, few: PromptSet) -> None:
        with pytest.raises(MaskError, match="expected one of greedy, beam, evolutionary, got 'random'"):
            bench.search(few, "random", 2)


def test_a_pages_job_is_the_same_call(bench: Bench, few: PromptSet, home: Workspace) -> None:
    """What a page starts makes the same Item, folders and numbers as the script's call."""
    from vlm_analysis.ui.common.work import job, watched

    items: list[Item] = [
        bench.evaluate(few, MASK),
        watched("evaluate", bench.evaluate, few, MASK)(no_progress),
        bench.record(few, "one"),
        job(bench.record, few, "one")(no_progress),
    ]
    for one, other in (items[:2], items[2:]):
        assert (one.name, one.model, one.prompts, one.details) == (
            other.name,
            other.model,
            other.prompts,
            other.details,
        )
    same(bench.open(items[0]).by_prompt, bench.open(items[1]).by_prompt)
    assert bench.open(items[2]).rows.tobytes() == bench.open(items[3]).rows.tobytes()
