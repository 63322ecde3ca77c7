"""Many masks compared with and without recovery: the edits of `recover`, made once, and gone on with after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_analysis import Bench, Cancelled, LoadedModel, PromptSet, PruneMask
from vlm_analysis.errors import EvaluationError
from vlm_analysis.selection.compared.recovered import hows_of
from vlm_analysis.workbench import recoveries
from vlm_analysis.workbench.comparisons import unfinished
from vlm_analysis.workbench.shelf import keep_mask
from vlm_analysis.workbench.workspace import Workspace

HOWS = ("scale", "subspace")


def test_every_mask_is_recovered_alike_and_a_stopped_comparison_goes_on(
    small: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(small, Workspace(tmp_path))
    masks = [PruneMask(8, (4,), name="four"), PruneMask(8, (0,), name="first")]
    ids = tuple(keep_mask(bench.workspace, mask).id for mask in masks)
    asked = {"masks": ids, "recover": HOWS}

    def stop(done: int, total: int, message: str) -> None:
        if message.startswith("recovering 3 of 4 masks (subspace)"):
            raise Cancelled

    with pytest.raises(Cancelled):
        bench.compare(few[:2], few[2:4], **asked, on_progress=stop)
    assert [one.question.recover for one in unfinished(bench.workspace)] == [HOWS]
    kept: list[str] = []
    keep_made = recoveries.keep_made
    monkeypatch.setattr(recoveries, "keep_made", lambda *given: kept.append(given[1].name) or keep_made(*given))
    comparison = bench.open(bench.compare(few[:2], few[2:4], **asked))
    assert kept == ["four, repaired (subspace)"], "the other was made before the stop"
    assert hows_of(comparison) == HOWS
    by_hand = [masks[0], masks[1], *(bench.open(bench.recover(masks[0], few[:2], how)) for how in HOWS)]
    assert list(comparison.masks) == by_hand
    scores = bench.scores(few[2:4], by_hand)
    assert comparison.scores["answer_nll"].tolist() == [one.by_prompt["answer_nll"].tolist() for one in scores]
    assert comparison.left_out.keys() == {f"first, recovered ({how})" for how in HOWS}
    assert "no layer before it is kept" in comparison.left_out["first, recovered (scale)"]
    assert not list(unfinished(bench.workspace))


def test_what_is_recovered_is_reported_on_other_prompts_and_in_a_known_way(
    small: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    bench = Bench(small, Workspace(tmp_path))
    with pytest.raises(EvaluationError, match="expected other prompts to report on than masks are recovered on"):
        bench.compare(few[:1], recover=["ridge"])
    for wrong in (["magic"], ["small+ridge"], ["ridge", "ridge"], "ridge"):
        with pytest.raises(EvaluationError, match=r"expected different ways to recover among ridge, .*'ridge\+small'"):
            bench.compare(few[:1], few[1:2], recover=wrong)
