"""A scan of vision tokens: each edit has the scores that it has alone, KL is that of float64, and half of the layers are run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import ask, ids_of

from vlm_analysis import LoadedModel, PromptSet, VisionScan, apply_edit, evaluate, scan_vision
from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.run.prepared import prepare
from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
from vlm_analysis.evaluation.scan import DENSE, EARLY_EXIT, FROZEN, LATE_ENTRY, edit_of_way, ways_of
from vlm_analysis.models import layers
from vlm_analysis.progress import Cancelled


@pytest.fixture(scope="module")
def scan(small: LoadedModel, few: PromptSet) -> VisionScan:
    return scan_vision(small, few)


def test_it_has_every_way_at_every_layer(scan, small, few):
    n_layers = small.n_layers
    ways = [(DENSE, -1), *ways_of(n_layers)]
    assert [tuple(one) for one in scan.table().index] == ways
    assert len(ways) == 3 * n_layers + 1
    assert len(scan.by_prompt) == len(few) * len(ways)
    assert (scan.table().loc[LATE_ENTRY, n_layers] == scan.table().loc[EARLY_EXIT, 0]).all()
    assert scan.table().loc[DENSE, -1]["kl_from_dense"] == 0


def test_each_edit_has_the_scores_that_it_has_alone_to_the_last_bit(scan, small, few):
    dense = evaluate(small, few)
    for way, layer in [(LATE_ENTRY, 2), (EARLY_EXIT, 5), (FROZEN, 3)]:
        alone = evaluate(small, few, scan.edit(way, layer), reference=dense).by_prompt.set_index("id")
        rows = scan.by_prompt[(scan.by_prompt["way"] == way) & (scan.by_prompt["layer"] == layer)].set_index("id")
        for name in ("exact_match", "answer_nll", "kl_to_dense"):
            assert (rows[name] == alone.loc[rows.index, name]).all()


def test_kl_goes_both_ways_and_that_of_the_first_token_is_told_apart(scan, small, few):
    prompt = few[0]
    ids = ids_of(small, prompt.answer)
    inputs = ask(small, prompt, ids)
    logs = []
    for model in (small.model, apply_edit(small.model, scan.edit(LATE_ENTRY, 2))):
        with torch.no_grad():
            logs.append(model(**inputs).logits[0, -len(ids) - 1 : -1].double().log_softmax(-1).numpy())
    dense, edited = logs
    to, back = ((np.exp(one) * (one - other)).sum(axis=1) for one, other in ((dense, edited), (edited, dense)))
    row = scan.by_prompt.set_index(["way", "layer", "id"]).loc[LATE_ENTRY, 2, prompt.id]
    expected = {
        "kl_to_dense": to.mean(),
        "kl_from_dense": back.mean(),
        "first_kl_to_dense": to[0],
        "first_kl_from_dense": back[0],
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-3), name


def test_tokens_are_counted_for_flops(scan, small, few):
    kinds = [ask(small, prompt)["mm_token_type_ids"][0].numpy() for prompt in few]
    answers = [len(ids_of(small, prompt.answer)) for prompt in few]
    assert scan.n_vision == pytest.approx(np.mean([kind.sum() for kind in kinds]))
    assert scan.n_text == pytest.approx(
        np.mean([(kind == 0).sum() + n for kind, n in zip(kinds, answers, strict=True)])
    )
    attention = small.model.get_decoder().layers[0].self_attn
    assert scan.attention_size == attention.q_proj.out_features
    assert scan.kv_parameters == sum(part.weight.numel() for part in (attention.k_proj, attention.v_proj))


def test_at_most_six_tenths_of_the_layers_of_one_by_one_are_run(small, few):
    plan = ordered([edit_of_way(8, *one, form="sliced") for one in [(DENSE, -1), *ways_of(8)]])
    runner = SharedRunner(small)
    assert len(list(runner.run([prepare(small, few[:1]).encoded[0]], plan))) == len(plan) == 24
    assert runner.layers_run <= 0.6 * runner.layers_counted


def test_it_stops_when_it_is_cancelled(small, few):
    def cancel(done: int, total: int, message: str) -> None:
        if "edits" in message and done > 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        scan_vision(small, few[:2], on_progress=cancel)


def test_a_model_that_refuses_all_says_why_and_one_that_refuses_some_scans_the_others(small, few, monkeypatch: Any):
    monkeypatch.setattr(layers, "vision_locked", lambda model: dict.fromkeys(range(8), "it is odd"))
    with pytest.raises(EditError, match=r"cannot skip layer \d: it is odd"):
        scan_vision(small, few[:2])
    monkeypatch.setattr(layers, "vision_locked", lambda model: dict.fromkeys(range(1, 8), "it is odd"))
    assert set(scan_vision(small, few[:1]).table().index) == {(DENSE, -1), (LATE_ENTRY, 1), (FROZEN, 0)}


def test_a_scan_that_was_stopped_goes_on_with_the_batches_that_are_missing(small, few, tmp_path):
    whole = scan_vision(small, few[:2], batch_size=1, folder=tmp_path)

    def told(done: int, total: int, message: str) -> None:
        seen.append(message)

    for path in sorted(tmp_path.iterdir())[1:]:
        path.unlink()
    seen: list[str] = []
    again = scan_vision(small, few[:2], batch_size=1, folder=tmp_path, on_progress=told)
    assert len({message for message in seen if message.startswith("part")}) == 1
    pd.testing.assert_frame_equal(again.by_prompt, whole.by_prompt)
