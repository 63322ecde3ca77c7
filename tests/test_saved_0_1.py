"""Work that version 0.1 saved opens, means the same, and goes on where it was cut short.

`saved_0_1/` was made by version 0.1, commit 4f75fcf, with the bundled model on two small prompt sets: `home/` is a workspace as its pages
leave it, `masks/` a mask in every dialect, `export/` what stands beside the weights of an exported checkpoint. The jobs behind the pages
made all of it. A recording, a sweep and a comparison were cancelled, and the ends of their files torn as a kill tears them.
`expected.json` is what the same code read there, and what it got when it went on.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from saved import EXPECTED, SAVED, TOLD, check, of_comparison, of_question, of_recording
from scored import n_scores

from vlm_analysis import (
    Bench,
    Edit,
    LoadedModel,
    PruneMask,
    many_masks,
    mask_to_csv,
    mask_to_mergekit,
    open_comparison,
    open_cost,
    open_dialect,
    open_evaluation,
    open_mask,
    open_prompts,
    open_recording,
    read_damage,
    sweep,
)
from vlm_analysis.edits.files import edit_to_json
from vlm_analysis.evaluation.scores import ScoreStore
from vlm_analysis.export.checkpoint import Manifest
from vlm_analysis.export.story import open_story
from vlm_analysis.progress import no_progress
from vlm_analysis.recording.rows import RowStore
from vlm_analysis.workbench.comparisons import unfinished
from vlm_analysis.workbench.costs import find_costs
from vlm_analysis.workbench.damages import find_damage
from vlm_analysis.workbench.kinds import open_sweep
from vlm_analysis.workbench.shelf import (
    find_dense,
    find_evidence,
    open_item,
    scores_folder,
    unfinished_folder,
)
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.stories import open_saved_story
from vlm_analysis.workbench.workspace import KINDS, Item, Workspace

ITEMS, MODEL, FINDS = EXPECTED["items"], EXPECTED["model"], EXPECTED["finds"]
LIVE = 1e-5  # numbers computed again: processors differ in their last bits
OPENERS: dict[str, Callable[[Path], Any]] = {
    "prompts": open_prompts,
    "recordings": open_recording,
    "masks": open_mask,
    "evaluations": open_evaluation,
    "sweeps": open_sweep,
    "comparisons": open_comparison,
    "costs": open_cost,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the saved workspace, which pages and jobs take for the user's."""
    shutil.copytree(SAVED / "home", tmp_path / "home")
    monkeypatch.setenv("STRATA_HOME", str(tmp_path / "home"))
    return Workspace(tmp_path / "home")


def item_of(home: Workspace, item_id: str) -> Item:
    found = home.find(ITEMS[item_id]["kind"], item_id)
    assert found is not None
    return found


def recording_of_story(home: Workspace) -> Item:
    return item_of(home, ITEMS[EXPECTED["story"]]["details"]["recordings"])


class TestOpening:
    def test_every_kind_is_listed_and_nothing_is_damaged(self, home: Workspace) -> None:
        listed = {item.id: item.kind for kind in KINDS for item in home.items(kind)}
        assert listed == {item_id: told["kind"] for item_id, told in ITEMS.items()}
        assert set(listed.values()) == set(TOLD)
        assert home.problems() == []

    @pytest.mark.parametrize("item_id", ITEMS)
    def test_an_item_is_described_and_opens_as_it_was_saved(self, home: Workspace, item_id: str) -> None:
        item, told = item_of(home, item_id), ITEMS[item_id]
        for name in ("name", "model", "prompts", "model_name", "details"):
            assert getattr(item, name) == told[name]
        value = open_saved_story(home, item) if item.kind == "stories" else open_item(item)
        check(TOLD[item.kind](value), told["value"])

    @pytest.mark.parametrize("item_id", [item_id for item_id, told in ITEMS.items() if told["kind"] in OPENERS])
    def test_its_file_opens_without_a_workspace(self, home: Workspace, item_id: str) -> None:
        kind, path = ITEMS[item_id]["kind"], item_of(home, item_id).path
        check(TOLD[kind](OPENERS[kind](path)), ITEMS[item_id]["value"])

    def test_a_story_opens_with_its_recording(self, home: Workspace) -> None:
        recording = open_recording(recording_of_story(home).path)
        story = open_story(item_of(home, EXPECTED["story"]).path, recording)
        check(TOLD["stories"](story), ITEMS[EXPECTED["story"]]["value"])

    def test_a_changed_number_is_noticed(self, home: Workspace) -> None:
        told = json.loads(json.dumps(ITEMS[EXPECTED["story"]]["value"]))
        told["curve"]["value"][3] += 1e-6
        story = open_saved_story(home, item_of(home, EXPECTED["story"]))
        with pytest.raises(AssertionError, match=r"curve\.value\[3\]"):
            check(TOLD["stories"](story), told)


class TestBelonging:
    @pytest.fixture
    def sets(self, home: Workspace) -> dict[str, Any]:
        """The saved prompt sets by their fingerprint, as they are computed now."""
        opened = [open_item(item) for item in home.items("prompts")]
        return {prompts.fingerprint: prompts for prompts in opened}

    def test_all_that_was_measured_matches_its_model_and_prompts(self, home, sets, loaded: LoadedModel) -> None:
        measured = [item for kind in KINDS if kind not in ("prompts", "masks") for item in home.items(kind)]
        assert {item.prompts for item in measured} == set(sets)
        assert {item.model for item in measured} == {loaded.fingerprint}

    def test_rows_of_recordings_and_evaluations_are_those_of_the_prompts(self, home: Workspace, sets) -> None:
        for item in home.items("recordings"):
            recording = open_item(item)
            assert recording.keys == sets[recording.prompts].row_keys
        for item in home.items("evaluations"):
            evaluation = open_item(item)
            assert evaluation.by_prompt["id"].tolist() == [prompt.id for prompt in sets[evaluation.prompts]]

    def test_a_dense_evaluation_is_found(self, home: Workspace) -> None:
        for prompts, item_id in FINDS["dense"].items():
            found = find_dense(home, MODEL, prompts)
            assert found is not None
            assert found.id == item_id
            assert open_item(found).is_dense

    def test_evidence_for_a_mask_is_found(self, home: Workspace) -> None:
        told = FINDS["evidence"]
        evidence, dense = find_evidence(home, open_item(item_of(home, told["mask"])), MODEL)
        assert (evidence is not None, dense is not None) == (True, True)
        check(TOLD["evaluations"](evidence), ITEMS[told["evaluation"]]["value"])
        check(TOLD["evaluations"](dense), ITEMS[told["dense"]]["value"])
        assert find_evidence(home, PruneMask(16, (3, 4)), MODEL) == (None, None)

    def test_measured_damage_is_found_where_it_is_whole(self, home: Workspace) -> None:
        for prompts, item_id in FINDS["damage"].items():
            found = find_damage(home, MODEL, prompts)
            check(TOLD["sweeps"](found), ITEMS[item_id]["value"] if item_id else [])

    def test_measured_costs_are_found(self, home: Workspace) -> None:
        costs, problems = find_costs(home, MODEL, None)
        assert ([list(cost.edit.dropped) for cost in costs], problems) == (FINDS["costs"], [])

    def test_a_saved_recording_and_its_damage_give_the_masks_of_the_saved_comparison(self, home: Workspace) -> None:
        prompts = ITEMS[EXPECTED["three_of_each"]]["prompts"]
        recording = open_item(recording_of_story(home))
        comparison = open_item(next(item for item in home.items("comparisons") if item.prompts == prompts))
        ways, _ = many_masks(
            recording,
            range(1, 4),
            criteria=("block-influence", "target-aware", "damage-kl"),
            strategies=("first-k", "minimum-gap", "random-draw"),
            damage=read_damage(find_damage(home, MODEL, prompts), recording.model),
            protected=recording.model.protected,
            n_draws=2,
        )
        found = [[way.method, way.budget, way.draw, way.mask.dropped] for way in ways]
        rows = comparison.ways.itertuples()
        assert found == [[row.method, row.budget, row.draw, comparison.masks[row.place].dropped] for row in rows]


class TestFiles:
    @pytest.fixture
    def greedy(self, home: Workspace) -> Edit:
        return open_item(item_of(home, EXPECTED["greedy"]))

    @pytest.mark.parametrize("name", ["greedy.yaml", "greedy.csv", "greedy.json"])
    def test_a_mask_opens_in_every_dialect(self, greedy: Edit, name: str) -> None:
        mask = open_dialect((SAVED / "masks" / name).read_bytes(), name, n_layers=16)
        assert mask == greedy
        if not name.endswith(".yaml"):  # which knows no order
            assert mask.provenance["drop_order"] == greedy.provenance["drop_order"]

    def test_a_mask_is_written_as_it_was(self, greedy: Edit) -> None:
        files = {path.suffix: path.read_text("utf-8") for path in (SAVED / "masks").iterdir()}
        assert mask_to_mergekit(greedy) == files[".yaml"]
        assert mask_to_csv(greedy) == files[".csv"]
        now, then = (json.loads(text) for text in (edit_to_json(greedy), files[".json"]))
        assert now | {"written": ""} == then | {"written": ""}

    def test_a_manifest_tells_of_its_mask_and_files(self, greedy: Edit, loaded: LoadedModel) -> None:
        told = json.loads((SAVED / "export" / "strata-manifest.json").read_text("utf-8"))
        assert told.keys() >= {field.name for field in fields(Manifest)} - {"changes"}
        assert (tuple(told["dropped"]), told["source_fingerprint"]) == (greedy.dropped, loaded.fingerprint)
        assert open_mask(SAVED / "export" / "strata-mask.json") == greedy
        assert told["reproduce"] in (SAVED / "export" / "README.md").read_text("utf-8")
        for name in ("README.md", "strata-mask.json"):
            assert hashlib.sha256((SAVED / "export" / name).read_bytes()).hexdigest() == told["files"][name]

    @pytest.mark.usefixtures("_proved_here")
    def test_its_command_says_what_to_write_and_then_makes_the_checkpoint_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = json.loads((SAVED / "export" / "strata-manifest.json").read_text("utf-8"))
        shutil.copy(SAVED / "export" / "strata-mask.json", tmp_path)
        monkeypatch.chdir(tmp_path)
        python, _, code = shlex.split(told["reproduce"])
        assert python == "python"
        imports = re.findall(r"from vlm_analysis\.\w+ import \w+", code)
        for line in imports:
            with pytest.raises(ImportError, match="Write: ") as told_instead:
                exec(line)
            code = code.replace(line, str(told_instead.value).partition("Write: ")[2])
        assert len(imports) == 3
        exec(code, {})
        weights = tmp_path / "pruned-again" / "model.safetensors"
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == told["files"]["model.safetensors"]


@pytest.fixture(scope="module")
def shared_slot() -> Iterator[ModelSlot]:
    """A slot with the bundled model in it."""
    slot = ModelSlot()
    slot.load("pocket-vl", {}, no_progress)
    yield slot
    slot.unload()


@pytest.fixture
def slot(home: Workspace, shared_slot: ModelSlot, monkeypatch: pytest.MonkeyPatch) -> ModelSlot:
    """The slot before anything was evaluated; builds of PyTorch count as the one that scored: "+cpu" or not, numbers are the same."""
    header = json.loads((home.root / "scores" / EXPECTED["scores"]["half"]["folder"] / "header.json").read_text())
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(header["torch"]))
    monkeypatch.setattr(transformers, "__version__", header["transformers"])
    shared_slot.dense.clear()
    return shared_slot


class Reports:
    """A progress that keeps its reports."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str]] = []

    def __call__(self, done: int, total: int, message: str) -> None:
        self.seen.append((done, total, message))

    @property
    def missing(self) -> int:
        """How many masks times batches the sweep had left to run."""
        return next((total for _, total, message in self.seen if message.startswith("part ")), 0)


class TestGoingOn:
    def test_scores_lie_where_they_are_looked_for(self, home: Workspace, slot: ModelSlot) -> None:
        for name, prompts in (("finished", "three_of_each"), ("half", "choices")):
            folder = scores_folder(home, slot.loaded, open_item(item_of(home, EXPECTED[prompts])))
            assert folder.name == EXPECTED["scores"][name]["folder"]
            assert (folder / "scores.bin").exists()

    @pytest.mark.parametrize("name", ["finished", "half"])
    def test_scores_on_disk_are_read_as_they_were_written(self, home: Workspace, name: str) -> None:
        told = EXPECTED["scores"][name]
        folder = home.root / "scores" / told["folder"]
        belongs = json.loads((folder / "header.json").read_text("utf-8"))
        rows, layers, version = (belongs.pop(name) for name in ("rows", "layers", "version"))
        assert version == 2
        store = ScoreStore(layers, rows, folder, belongs)
        for mask in told["masks"]:
            key = PruneMask(layers, mask["dropped"]).key
            assert len(store.of(key)) == rows
            for metric in ("answer_nll", "kl_to_dense"):
                check(store.column(metric, [key], rows)[0], mask[metric])
        assert n_scores(folder) == len(told["masks"]) * rows  # the torn end is left out
        assert not (folder / "scores.bin").exists()

    def test_an_unfinished_recording_goes_on_and_runs_only_what_is_missing(
        self, home: Workspace, slot: ModelSlot
    ) -> None:
        told, prompts = EXPECTED["unfinished_recording"], item_of(home, EXPECTED["choices"])
        folder = unfinished_folder(home, MODEL, prompts, told["options"])
        assert folder.name == told["folder"]
        belongs = json.loads((folder / "header.json").read_text("utf-8"))["belongs"]
        store = RowStore(folder, belongs, 16)
        keys, old = store.keys, np.fromfile(folder / "rows.bin", store.type, 3)
        assert len(keys) == told["n_rows"]
        passes = []
        hook = slot.loaded.model.register_forward_pre_hook(lambda *_: passes.append(1))
        try:
            recording = open_item(Bench(slot, home).record(prompts, "goes on", **told["options"]))
        finally:
            hook.remove()
        assert len(passes) == len(recording.keys) - len(keys) == 3
        kept = recording.rows[[recording.keys.index(key.decode()) for key in old["key"].tolist()]]
        for name in store.type.names or ():
            np.testing.assert_array_equal(kept[name], old[name])
        check(of_recording(recording), told["value"], LIVE)
        assert not folder.exists()

    def test_a_finished_sweep_is_not_run_again(self, home: Workspace, slot: ModelSlot) -> None:
        scores, reports = EXPECTED["scores"]["finished"], Reports()
        prompts = item_of(home, EXPECTED["three_of_each"])
        assert Bench(slot, home).measure_damage(prompts, on_progress=reports).details["n"] == 1 + 16
        kept = n_scores(home.root / "scores" / scores["folder"])
        assert (reports.missing, kept) == (0, len(scores["masks"]) * scores["rows"])

    def test_a_half_finished_sweep_goes_on_and_runs_only_what_is_missing(self, home, slot: ModelSlot) -> None:
        scores, told = EXPECTED["scores"]["half"], EXPECTED["half_sweep"]
        reports = Reports()
        prompts = item_of(home, EXPECTED["choices"])
        assert Bench(slot, home).measure_damage(prompts, on_progress=reports).details["n"] == 1 + 16
        assert reports.missing == told["missing"] == 9
        kept = n_scores(home.root / "scores" / scores["folder"])
        assert kept == (len(scores["masks"]) + 9) * scores["rows"]
        found = [
            [e.mask.dropped, e.by_prompt["kl_to_dense"].mean(), e.by_prompt["answer_nll"].mean()]
            for e in find_damage(home, MODEL, prompts.prompts)
        ]
        check(found, told["value"], LIVE)

    def test_the_library_takes_the_scores_up_too(self, home: Workspace, slot: ModelSlot) -> None:
        scores, reports = EXPECTED["scores"]["half"], Reports()
        masks = [PruneMask(16, tuple(mask["dropped"])) for mask in scores["masks"]]
        prompts = open_item(item_of(home, EXPECTED["choices"]))
        folder = home.root / "scores" / scores["folder"]
        made = list(sweep(slot.loaded, prompts, masks, folder=folder, on_progress=reports))
        assert reports.missing == 0
        for evaluation, mask in zip(made, scores["masks"], strict=True):
            np.testing.assert_allclose(evaluation.by_prompt["kl_to_dense"], mask["kl_to_dense"][:6], rtol=1e-10)

    @pytest.mark.slow  # a sweep goes on in `make test`
    def test_an_unfinished_comparison_goes_on_and_runs_only_what_is_missing(
        self, home: Workspace, slot: ModelSlot
    ) -> None:
        told, reports = EXPECTED["unfinished_comparison"], Reports()
        (left,) = unfinished(home)
        assert (left.folder.name, left.model) == (told["folder"], MODEL)
        assert (left.model_name, left.name) == (told["model_name"], told["name"])
        check(of_question(left.question), told["question"])
        choose, report = (item_of(home, item_id) for item_id in (left.question.choose, left.question.report))
        made = open_item(Bench(slot, home).compare(choose, report, **left.question.options, on_progress=reports))
        assert reports.missing == told["missing"] == 21
        check(of_comparison(made), told["value"], LIVE)
        assert list(unfinished(home)) == []
