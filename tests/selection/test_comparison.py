"""The Comparison and what it tells, against float64 references written here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from compared import MODEL, made
from hypothesis import given, strategies as st

from vlm_analysis import Comparison, mask_table, retention, retention_interval
from vlm_analysis.selection.compared.findings import (
    cost_curve,
    on_front,
    retention_curves,
    retentions,
)


@pytest.fixture
def small() -> Comparison:
    rng = np.random.default_rng(0)
    domains = ["art"] * 12 + ["math"] * 12
    names = [(c, s, b) for c in ("one", "two") for s in ("first-k", "minimum-gap") for b in (1, 2)]
    dense = np.r_[np.ones(10), 0, 0, np.ones(8), np.zeros(4)]
    return made({name: (rng.random(24) < 0.7).astype(float) for name in names}, domains, dense)


class TestNumbers:
    def test_retention_and_its_interval_are_those_of_each_evaluation_alone(self, small: Comparison) -> None:
        curves = retention_curves(small).set_index(["method", "domain", "budget"])
        for row in small.ways.itertuples():
            pruned = small.evaluation(row.place)
            for domain in ("art", "math"):
                found = curves.loc[row.method, domain, row.budget]
                assert found["value"] == pytest.approx(retention(pruned, small.dense)[domain], abs=1e-15)
                assert (found["low"], found["high"]) == pytest.approx(
                    retention_interval(pruned, small.dense, domain), abs=1e-12
                )

    def test_a_domain_the_dense_model_fails_has_no_retention(self) -> None:
        comparison = made({("one", "first-k", 1): np.ones(4)}, ["art", "art", "math", "math"], np.array([1, 1, 0, 0]))
        assert retentions(comparison, "math").tolist() != retentions(comparison, "art").tolist()
        assert np.isnan(retentions(comparison, "math")).all()
        curves = retention_curves(comparison)
        assert curves[curves["domain"] == "math"]["value"].isna().all()
        assert mask_table(comparison)["on_front"].tolist() == [True]  # by what is defined

    def test_random_masks_are_a_range_over_draws(self, small: Comparison) -> None:
        ways = small.ways.assign(method="random", strategy="random-draw", criterion=None)
        curves = retention_curves(replace(small, ways=ways))
        at = curves[(curves["domain"] == "art") & (curves["budget"] == 1)].iloc[0]
        values = retentions(small, "art")[small.ways[small.ways["budget"] == 1]["place"]]
        assert (at["low"], at["value"], at["high"]) == pytest.approx((values.min(), values.mean(), values.max()))

    def test_a_random_draw_without_a_number_leaves_none_for_the_band(self, small: Comparison) -> None:
        ways = small.ways.assign(method="random", strategy="random-draw", criterion=None)
        agreement = small.scores["token_agreement"].copy()
        agreement[int(ways[ways["budget"] == 1]["place"].iloc[0])] = np.nan
        broken = replace(small, ways=ways, scores={**small.scores, "token_agreement": agreement})
        curves = retention_curves(broken, "token_agreement").set_index("budget")
        assert curves.loc[1, ["value", "low", "high"]].isna().all().all()
        assert curves.loc[2, ["value", "low", "high"]].notna().all().all()

    def test_the_worst_domain_is_the_worst_that_is_defined(self) -> None:
        comparison = made(
            {("one", "first-k", 1): np.array([1, 0, 1, 1])}, ["art", "art", "math", "math"], np.array([1, 1, 0, 0])
        )
        assert mask_table(comparison)["worst"].tolist() == [0.5]

    def test_cost_is_counted_in_parameters_of_the_dropped_layers(self, small: Comparison) -> None:
        left = small.parameters_left()
        for mask, share in zip(small.masks, left, strict=True):
            gone = sum(MODEL.layer_parameters[layer] for layer in mask.dropped)
            assert share == pytest.approx(1 - gone / 400)
        by_budget = cost_curve(small).set_index("budget")["value"]
        assert by_budget[1] == pytest.approx(
            np.mean([s for m, s in zip(small.masks, left, strict=True) if m.budget == 1])
        )

    def test_table_holds_every_mask_with_its_methods(self, small: Comparison) -> None:
        twice = pd.concat([small.ways, small.ways.assign(method="again")], ignore_index=True)
        table = mask_table(replace(small, ways=twice))
        assert len(table) == len(small.masks)
        assert table["methods"][0] == "one; again"
        assert table["worst"].tolist() == table[["retention, art", "retention, math"]].min(axis=1).tolist()
        nll = small.scores["answer_nll"] - small.dense.by_prompt["answer_nll"].to_numpy()
        np.testing.assert_allclose(table["nll_above_dense"], nll.mean(axis=1), rtol=1e-12)

    def test_table_keeps_retention_of_the_score_asked_for(self, small: Comparison) -> None:
        agreement, exact = mask_table(small, "token_agreement"), mask_table(small)
        for domain in small.domains:
            here = (small.dense.by_prompt["domain"] == domain).to_numpy()
            mean = small.scores["token_agreement"][:, here].mean(axis=1)  # the dense model agrees with itself
            np.testing.assert_allclose(agreement[f"retention, {domain}"], mean, rtol=1e-12)
        assert not agreement["worst"].equals(exact["worst"])
        assert agreement["nll_above_dense"].equals(exact["nll_above_dense"])


values = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12)


@given(values)
def test_front_is_what_no_other_row_beats(rows: list[tuple[int, int, int]]) -> None:
    found = on_front(np.array(rows, float))
    for one, mine in zip(found, rows, strict=True):
        beaten = any(all(a <= b for a, b in zip(o, mine, strict=True)) and o != mine for o in rows)
        assert one == (not beaten)


def test_a_row_with_nan_is_never_on_the_front() -> None:
    assert on_front(np.array([[np.nan, 0], [1, 1]])).tolist() == [False, True]
    assert on_front(np.full((2, 2), np.nan)).tolist() == [False, False]
