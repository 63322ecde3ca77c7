"""The `repr` of every public value fits two lines of a notebook and names what matters of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from compared import MODEL, made
from PIL import Image
from rankings import full_recording

from vlm_analysis import Bench, Damage, LayerScores, Locks, Prompt, PromptSet, PruneMask, answer_of
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common import jobs
from vlm_analysis.workbench.sidecars import Item

if TYPE_CHECKING:
    from vlm_analysis import LoadedModel

TWO_LINES = 240
LONG = "many words " * 500
PICTURE = Image.new("RGB", (4, 4))
MASK = PruneMask(8, (5, 3), name="five and three")
COMPARISON = made({("one", "first-k", 2): np.ones(4), ("two", "first-k", 1): np.zeros(4)}, ["math", "general"] * 2)
PROMPTS = PromptSet([Prompt((PICTURE,), f"how many circles {at}?", f"domain {at}", f"{at}", "13") for at in range(9)])
RANGE = np.arange(6.0)
DAMAGE = Damage("p" * 64, ("a", "b"), ("math", "math"), {}, np.arange(8) < 6, True)
ITEM = Item("masks", "id", "five", "2026", Path("five"), model_name="toy", details={"what": LONG})
SAID = [
    (PROMPTS, "PromptSet(9 prompts, domains domain 0, domain 1, domain 2, domain 3 and 5 more)"),
    (PROMPTS[3], "Prompt('3', domain domain 3, 1 image, 'how many circles 3?', answer '13')"),
    (MODEL, "ModelInfo(toy, 8 layers, float32, fingerprint ffffffff)"),
    (Locks(8, {0: LONG, 7: LONG}, {2: LONG}), "Locks(8 layers, protected 0, 7, locked 2)"),
    (MASK, "PruneMask(8, [3, 5], name='five and three')"),
    (PruneMask(8), "PruneMask(8, [])"),
    (full_recording(), "Recording(made, 9 layers, 14 prompts of math, general, maps)"),
    (
        COMPARISON.dense,
        "Evaluation(toy, PruneMask(8, []), 4 prompts of math, general, Exact match 1, KL to dense 0)",
    ),
    (COMPARISON, "Comparison(toy, 2 masks by 2 methods, 4 prompts of math, general)"),
    (
        LayerScores("contrast", RANGE, RANGE, "highest", {"target": "math"}),
        "LayerScores(contrast, 6 layers, drops first 5, 4, 3, 2, 1, 0, target math)",
    ),
    (DAMAGE, "Damage(6 of 8 layers measured, 2 prompts of math)"),
    (ITEM, "Item(masks, 'five', id, toy)"),
]


@pytest.mark.parametrize(("value", "said"), SAID, ids=[type(value).__name__ for value, _ in SAID])
def test_a_value_says_what_matters_of_it(value: object, said: str) -> None:
    assert repr(value) == said
    assert len(said) <= TWO_LINES


def test_an_answer_says_what_its_mask_keeps() -> None:
    said = repr(answer_of(COMPARISON, 2))
    assert said.startswith("Answer(toy, PruneMask(8, [6, 7], name='one 2'), one, ")
    assert "math keeps 100%" in said
    assert len(said) <= TWO_LINES


@pytest.mark.parametrize(
    "value",
    [
        Prompt((PICTURE,) * 9, LONG, LONG[:100], LONG[:100], LONG, task=LONG[:100]),
        PromptSet([Prompt((PICTURE,), "why?", f"{at} {LONG[:90]}") for at in range(9)]),
        PruneMask(200, range(150), name=LONG[:110], notes=LONG, provenance={"why": LONG}),
        ModelInfo(LONG, "f" * 64, 8, protected=dict.fromkeys(range(8), LONG), chat_template=LONG),
    ],
    ids=lambda value: type(value).__name__,
)
def test_long_texts_and_many_layers_stay_within_two_lines(value: object) -> None:
    assert len(repr(value)) <= TWO_LINES
    assert "\n" not in repr(value)


def test_what_a_mask_says_makes_it_again() -> None:
    assert eval(repr(MASK), {"PruneMask": PruneMask}) == MASK


def test_a_model_and_its_bench_say_what_they_are(loaded: LoadedModel, tmp_path: Path) -> None:
    said = repr(loaded)
    assert said.startswith("LoadedModel(pocket-vl, 16 layers, ")
    assert said.endswith(" M parameters, float32 on cpu)")
    assert repr(Bench("pocket-vl", tmp_path)) == f"Bench(pocket-vl, Workspace({json.dumps(str(tmp_path))[1:-1]}))"


def test_jobs_for_masks_that_differ_behind_their_cut_repr_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    board = SimpleNamespace(submit=lambda *_, dedupe, origin: asked.append(dedupe))
    monkeypatch.setattr(jobs, "runner", lambda: board)
    monkeypatch.setattr(jobs.st, "session_state", {})
    one, other = (PruneMask(200, {*range(20), last}) for last in (50, 60))
    assert repr(one) == repr(other)
    for mask in (one, other, one):
        jobs.start("evaluate", "Evaluating", lambda progress: None, mask)
    assert asked[0] == asked[2] != asked[1]
