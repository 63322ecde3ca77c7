"""Claims of papers: the paper's own numbers for and against, yours by hand, and a verdict only where the prompts tell."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from rankings import full_recording, left_out

from vlm_analysis import Comparison, Evaluation, PruneMask, claims, published_retention, read_damage
from vlm_analysis.figures.curves import retention_curve
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.claims import CLAIMS, FAILS, HOLDS, UNTOLD
from vlm_analysis.selection.compared.comparison import ways_frame
from vlm_analysis.selection.compared.findings import retention_curves
from vlm_analysis.selection.compared.published import published_curves
from vlm_analysis.selection.strategies.domain_aware import READINGS
from vlm_analysis.selection.strategies.many import Way

MODEL = ModelInfo("toy", "f" * 64, 16)
N = 60


def compared(right: dict[tuple[str, int], np.ndarray], n: int = N, target: str | None = None) -> Comparison:
    """Return a comparison of one mask for each (ranking, budget), with the exact matches given, which the dense model all has."""
    frame = pd.DataFrame(
        {
            "id": [str(place) for place in range(n)],
            "domain": ["math"] * n,
            "exact_match": True,
            "answer_nll": 0.1,
            "token_agreement": 1.0,
            "kl_to_dense": 0.0,
            "answer": "a",
            "answer_source": "given",
            "answer_ids": [[1]] * n,
        }
    )
    free = {budget: combinations(range(1, 15), budget) for _, budget in right}
    masks = [PruneMask(16, next(free[budget])) for _, budget in right]
    ways = [
        Way(key, None, key, target if key in READINGS and READINGS[key].of_target else None, budget, 0, mask)
        for (key, budget), mask in zip(right, masks, strict=True)
    ]
    values = np.array(list(right.values()), float)
    scores = {"exact_match": values, "answer_nll": values, "token_agreement": values, "kl_to_dense": 1 - values}
    dense = Evaluation(PruneMask(16), MODEL, "p" * 64, frame)
    return Comparison(dense, tuple(masks), scores, ways_frame(ways, masks), "c" * 64)


def kept(first: int, n: int = N) -> np.ndarray:
    return (np.arange(n) < first).astype(float)


def of(frame: pd.DataFrame, claim: str) -> pd.Series:
    return frame[frame["claim"] == claim].iloc[0]


TWO = {("domain-aware-target", 1): kept(55), ("domain-aware-others", 1): kept(35)}


def test_a_claim_holds_where_the_difference_is_plain_and_its_number_is_the_one_by_hand() -> None:
    row = of(claims(compared(TWO, target="math")), "1 Domain-aware helps")
    assert row["yours"] == pytest.approx(20 / 60)
    assert row["low"] < 20 / 60 < row["high"]
    assert (row["verdict"], row["would_tell"], row["n_prompts"], row["n_groups"]) == (HOLDS, "", 60, 60)


def test_it_does_not_hold_where_the_difference_is_plain_the_other_way() -> None:
    turned = dict(zip(TWO, list(TWO.values())[::-1], strict=True))
    assert of(claims(compared(turned)), "1 Domain-aware helps")["verdict"] == FAILS


def test_what_cannot_be_told_says_how_many_prompts_would() -> None:
    near = {("domain-aware-target", 1): kept(40), ("domain-aware-others", 1): kept(38)}
    row = of(claims(compared(near)), "1 Domain-aware helps")
    assert row["verdict"] == UNTOLD
    number = int(row["would_tell"].split()[1].replace(",", ""))
    assert 60 < number < 2000
    more = {key: kept(round(values.sum()) * 20, N * 20) for key, values in near.items()}
    assert of(claims(compared(more, N * 20)), "1 Domain-aware helps")["verdict"] == HOLDS
    assert number < N * 20
    same = dict.fromkeys(TWO, kept(40))
    assert "No number of such prompts" in of(claims(compared(same)), "1 Domain-aware helps")["would_tell"]


def test_too_few_prompts_and_budgets_that_were_not_compared_are_said() -> None:
    few = of(claims(compared({key: values[:4] for key, values in TWO.items()}, 4)), "1 Domain-aware helps")
    assert few["verdict"] == UNTOLD
    assert "5 groups at least" in few["would_tell"]
    far = of(claims(compared(TWO)), "3 Structure-dominated")
    assert "No mask drops 32% to 100%" in far["would_tell"]


def test_rankings_that_differ_are_sensitive_below_and_do_not_converge_above() -> None:
    right = {
        (key, budget): kept(first)
        for budget in (1, 3)
        for key, first in zip(list(READINGS)[:3], (55, 35, 20), strict=True)
    }
    frame = claims(compared(right))
    assert of(frame, "3 Ranking-sensitive")["verdict"] == HOLDS
    assert of(frame, "3 Transition")["verdict"] == FAILS
    alike = {key: kept(40 + place % 2) for place, key in enumerate(right)}
    assert of(claims(compared(alike)), "3 Transition")["verdict"] == UNTOLD


def test_all_verdicts_are_corrected_together() -> None:
    """A difference that one test of a table would call real is not, among as many tests as there are claims told."""
    right = {(key, budget): kept(40) for budget in (1, 3, 5) for key in READINGS}
    right["domain-aware-target", 1] = kept(43)
    frame = claims(compared(right))
    row = of(frame, "1 Domain-aware helps")
    assert row["p"] < 0.1
    assert row["verdict"] == UNTOLD


def test_methods_of_a_comparison_of_before_stand_in() -> None:
    ways = compared(TWO)
    renamed = ways.ways.assign(strategy="first-k", criterion=["target-aware", "others-aware"])
    old = Comparison(ways.dense, ways.masks, ways.scores, renamed, ways.chosen_on)
    assert of(claims(old), "1 Domain-aware helps")["yours"] == pytest.approx(20 / 60)


def test_the_papers_own_tables_are_given_for_and_against() -> None:
    table = published_retention().set_index(["model", "group", "share", "method"])["retention"]
    assert len(table) == 2 * 2 * 3 * 6
    assert table["Qwen3-VL-2B-Instruct", "math", 0.1, "math-aware"] == pytest.approx(0.696, abs=5e-4)
    assert table["Qwen3-VL-4B-Instruct", "math", 0.4, "interlace"] == pytest.approx(0.239, abs=5e-4)
    frame = claims()
    assert list(frame.columns) == list(CLAIMS)
    assert len(frame) == 9
    assert (frame["verdict"] == UNTOLD).all()
    assert (frame["would_tell"] != "").all()
    helps = of(frame, "1 Domain-aware helps")
    assert "Qwen3-VL-2B, math, 10%: 69.6 against 62.0 %" in helps["theirs"]
    assert helps["against"].startswith("Qwen3-VL-4B, general, 10%: 86.5 against 87.9 %; ")
    assert "Qwen3-VL-2B, math, 25%, a larger budget: 23.9 against 27.3 %" in helps["against"]
    aware, not_aware = (table.xs(name, level="method") for name in ("math-aware", "non-math-aware"))
    gaps = (aware - not_aware) * [1 if group == "math" else -1 for _, group, _ in aware.index]
    assert helps["against"].count(" against ") == (gaps < 0).sum()
    beats = of(frame, "4 Beats baselines")
    assert "Qwen3-VL-4B, math, 10%: 70.5 against 72.8 %" in beats["against"]
    assert "Nothing was recovered" in frame.iloc[-1]["would_tell"]


def test_cosine_misleads_where_a_layer_it_drops_first_does_most_harm() -> None:
    recording = full_recording(12, 9)
    evaluations = left_out(9)
    frame = claims(None, recording, read_damage(evaluations, recording.model))
    row = of(frame, "5 Cosine misleads")
    assert row["n_prompts"] == 6
    assert row["domain"].startswith("layer ")
    assert np.isfinite(row["yours"])


def test_published_curves_name_the_other_model_and_lie_at_its_shares_of_your_layers() -> None:
    curves = published_curves(compared(TWO), "interlace")
    assert curves["title"].unique().tolist() == [
        f"Qwen3-VL-{size}, interlace, arXiv:2603.20275" for size in ("2B", "4B")
    ]
    assert sorted(set(curves["budget"])) == pytest.approx([1.4, 3.5, 5.6])
    figure = retention_curve(retention_curves(compared(TWO)), published=curves).to_dict()
    dashed = [trace for trace in figure["data"] if trace.get("name", "").startswith("Qwen3-VL-4B, interlace")]
    assert len(dashed) == 1
    assert dashed[0]["y"][-1] == pytest.approx(0.239, abs=5e-4)
    assert (dashed[0]["line"]["width"], "px" in dashed[0]["line"]["dash"]) == (1, True)
