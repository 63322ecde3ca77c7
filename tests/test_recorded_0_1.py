"""Numbers of version 0.1 on all 90 bundled prompts come out again: the story, scores of masks, scores of layers, and fingerprints.

`recorded_0_1/` was made by version 0.1, commit 4f75fcf, on one thread of a CPU:

    story.json         the demo: its masks, the whole curve, dense and pruned by domain, examples
    sweep.json         four scores of every prompt, of each layer left out alone and of some masks of several criteria and budgets
    scores.json        the scores of layers by every criterion (recorded with attention maps, damage from the sweep), and what
                       every strategy drops at budgets 1 to 5
    fingerprints.json  of the bundled model and prompts
    conformance.json   the table of docs/conformance.md, by class

Layers, truth values, texts and fingerprints are compared exactly, other numbers to 1e-5: processors differ in their last bits.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.readme import TARGET, table as conformance_table
from saved import by_domain, check, table

from vlm_analysis import (
    CRITERIA,
    Damage,
    Evaluation,
    LoadedModel,
    PromptSet,
    PruneMask,
    Recording,
    Story,
    compare,
    evaluate,
    many_masks,
    open_prompts,
    read_damage,
    record,
    score_layers,
    sweep,
)

RECORDED = Path(__file__).parent / "recorded_0_1"
CLOSE = 1e-5
NUMBERS = ("answer_nll", "token_agreement", "kl_to_dense")
WORST_FIRST = "✗–○✓"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text("utf-8"))


SWEEP, SCORES = recorded("sweep"), recorded("scores")


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what masks of the story scored, which those of the sweep share."""
    return tmp_path_factory.mktemp("scores")


@pytest.fixture(scope="module")
def story(loaded: LoadedModel, packs: PromptSet, scores: Path) -> Story:
    return compare(loaded, packs, scores=scores)


@pytest.fixture(scope="module")
def dense(loaded: LoadedModel, packs: PromptSet) -> Evaluation:
    return evaluate(loaded, packs)


@pytest.fixture(scope="module")
def evaluations(loaded: LoadedModel, packs: PromptSet, dense: Evaluation, scores: Path) -> list[Evaluation]:
    """The evaluations of the recorded masks, in their order."""
    masks = [PruneMask(16, tuple(told["dropped"])) for told in SWEEP["masks"]]
    return list(sweep(loaded, packs, masks, reference=dense, folder=scores))


@pytest.fixture(scope="module")
def damage(loaded: LoadedModel, dense: Evaluation, evaluations: list[Evaluation]) -> Damage:
    return read_damage([dense, *(one for one in evaluations if one.mask.budget == 1)], loaded.info)


@pytest.fixture(scope="module")
def recorded_damage(loaded: LoadedModel, evaluations: list[Evaluation]) -> Damage:
    """The damage by the recorded numbers: two layers lie 2e-7 nats apart, which another processor may turn round."""
    told = [
        replace(one, by_prompt=one.by_prompt.assign(**{name: then[name] for name in NUMBERS}))
        for one, then in zip(evaluations, SWEEP["masks"], strict=True)
    ]
    return read_damage([one for one in told if one.mask.budget == 1], loaded.info)


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, packs: PromptSet) -> Recording:
    return record(loaded, packs, attention=True)


@pytest.mark.slow  # a hundred masks; of some of them `make test` has every prompt's scores, below
class TestStory:
    @pytest.mark.parametrize("part", ["shown", "masks", "curve", "dense", "pruned", "examples"])
    def test_the_demo_tells_what_it_told(self, story: Story, part: str) -> None:
        found = {
            "shown": story.shown[0],
            "masks": {name: mask.dropped for name, mask in story.masks.items()},
            "curve": table(story.curve[["method", "domain", "budget", "value"]]),
            "dense": by_domain(story.dense),
            "pruned": by_domain(story.pruned),
            "examples": table(story.examples),
        }
        told = recorded("story")[part]
        check(found[part], {name: told[name] for name in found[part]} if part == "curve" else told, CLOSE)

    def test_its_intervals_are_those_of_the_bootstrap_to_a_few_points(self, story: Story) -> None:
        """Version 0.1 drew the prompts again and widened that by Wilson's interval; now the ends are exact."""
        told = recorded("story")["curve"]
        for end, sign in (("low", -1), ("high", 1)):
            wider = sign * (story.curve[end] - np.array(told[end]))
            assert wider.between(-0.03, 0.06).all(), wider.describe()
            assert (wider[story.curve["method"] == "random"].abs() < CLOSE).all()


class TestSweep:
    def test_each_layer_is_left_out_and_masks_of_several_budgets_are_there(self) -> None:
        dropped = [tuple(told["dropped"]) for told in SWEEP["masks"]]
        assert set(dropped) >= {(layer,) for layer in range(16)}
        assert {2, 3, 5, 8} <= {len(layers) for layers in dropped}

    def test_prompts_and_dense_scores_are_the_same(self, dense: Evaluation) -> None:
        assert dense.by_prompt["id"].tolist() == SWEEP["ids"]
        check(by_domain(dense), SWEEP["dense"], CLOSE)

    @pytest.mark.parametrize(
        "place", range(len(SWEEP["masks"])), ids=lambda place: str(SWEEP["masks"][place]["dropped"])
    )
    def test_a_mask_has_the_same_scores_on_every_prompt(self, evaluations: list[Evaluation], place: int) -> None:
        told, frame = SWEEP["masks"][place], evaluations[place].by_prompt
        assert "".join("01"[right] for right in frame["exact_match"].astype(int)) == told["exact_match"]
        for name in NUMBERS:
            np.testing.assert_allclose(frame[name], told[name], rtol=CLOSE, atol=CLOSE, err_msg=name)


class TestRanking:
    def test_every_criterion_of_then_is_there(self) -> None:
        assert {told["criterion"] for told in SCORES["scores"]} <= set(CRITERIA)

    @pytest.mark.parametrize("told", SCORES["scores"], ids=lambda told: f"{told['criterion']}-{told['target']}")
    def test_a_criterion_scores_layers_as_it_did(self, recording: Recording, damage: Damage, told) -> None:
        found = score_layers(recording, told["criterion"], target=told["target"], damage=damage)
        check({name: getattr(found, name) for name in ("drop", "values", "spread")}, without_names(told), CLOSE)

    def test_every_strategy_drops_the_same_layers(self, loaded: LoadedModel, recording, recorded_damage) -> None:
        ways, refused = many_masks(
            recording,
            range(1, 6),
            criteria=list(
                dict.fromkeys(told["criterion"] for told in SCORES["scores"] if told["criterion"] != "random")
            ),
            strategies=SCORES["strategies"],
            damage=recorded_damage,
            protected=loaded.protected_layers,
            locked=loaded.locked_layers,
        )
        found: dict[str, dict[str, list[Any]]] = {}
        for way in ways:
            found.setdefault(way.method, {}).setdefault(str(way.budget), []).append(list(way.mask.dropped))
        assert (found, refused) == (SCORES["masks"], SCORES["refused"])


def without_names(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("drop", "values", "spread")}


class TestFingerprints:
    def test_the_bundled_model_is_the_same(self, loaded: LoadedModel) -> None:
        told, info = recorded("fingerprints"), loaded.info
        assert (loaded.fingerprint, info.config_hash) == (told["model"], told["config"])
        assert (info.n_parameters, list(info.layer_parameters)) == (told["n_parameters"], told["layer_parameters"])
        assert sorted(loaded.protected_layers) == told["protected"]

    def test_the_bundled_prompts_are_the_same(self, packs: PromptSet, few: PromptSet) -> None:
        math, general = open_prompts("math"), open_prompts("general")
        sets = {"math": math, "general": general, "general + math": general + math, "math + general": packs, "few": few}
        told = recorded("fingerprints")
        assert {name: prompts.fingerprint for name, prompts in sets.items()} == told["prompts"]
        assert [prompt.key for prompt in few] == told["keys"]
        assert list(few.row_keys) == told["row_keys"]


def test_no_class_lost_a_mark_in_the_table_of_conformance() -> None:
    now = {f"{name} ({kind})": cells for kind, (name, cells) in conformance_table(TARGET.read_text("utf-8")).items()}
    before = recorded("conformance")
    assert before.keys() <= now.keys()
    for name, told in before.items():
        marks = list(zip(list(told.values())[:5], now[name], strict=False))
        assert all(WORST_FIRST.index(then) <= WORST_FIRST.index(mark) for then, mark in marks), f"{name}: {marks}"
