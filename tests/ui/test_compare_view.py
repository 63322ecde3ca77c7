"""A saved comparison on the Evaluate page: what is drawn of many domains, what is said, and what is kept between script runs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from acting import OpenPage, ran, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import Comparison, Cost, Evaluation, PruneMask, mask_table, regimes
from vlm_analysis.evaluation.evaluation import with_groups
from vlm_analysis.figures import curves, front
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.comparison import ways_frame
from vlm_analysis.selection.compared.findings import retention_curves
from vlm_analysis.selection.strategies.many import Way
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.ui.evaluate.compareview import _best_methods
from vlm_analysis.workbench.shelf import keep_comparison, keep_cost

MODEL = ModelInfo("toy", "f" * 64, 8, layer_parameters=(10,) * 8, n_parameters=100)
BUDGETS = (1, 2, 3)


def made(n_domains: int = 2, n_criteria: int = 4, above: float = 0.0, **more) -> Comparison:
    """Return a comparison on 40 prompts a domain; `above` is the share of wrong dense answers."""
    rng = np.random.default_rng(0)
    names = [f"domain {i}" for i in range(n_domains) for _ in range(40)]
    right = np.arange(len(names)) % 4 >= 4 * above
    frame = pd.DataFrame({"id": map(str, range(len(names))), "domain": names, "exact_match": right, "answer_nll": 0.1})
    frame = frame.assign(token_agreement=1.0, kl_to_dense=0.0, answer="a", answer_source="given")
    frame["answer_ids"] = [[1]] * len(frame)
    ways, masks = [], {}
    for number in range(n_criteria):
        for strategy, after in (("first-k", ""), ("minimum-gap", ", spaced")):
            for budget in BUDGETS:
                mask = PruneMask(8, rng.choice(8, budget, replace=False), name=f"{number}{after} {budget}")
                mask = masks.setdefault(mask, mask)
                ways.append(Way(f"criterion {number}{after}", f"c{number}", strategy, None, budget, 0, mask))
    values = (rng.random((len(masks), len(names))) < 0.7).astype(float)
    scores = dict.fromkeys(("answer_nll", "token_agreement", "kl_to_dense"), values) | {"exact_match": values}
    dense = Evaluation(PruneMask(8), MODEL, "p" * 64, frame)
    return replace(Comparison(dense, tuple(masks), scores, ways_frame(ways, tuple(masks))), **more)


def shown(open_page: OpenPage, comparison: Comparison) -> AppTest:
    keep_comparison(workspace(), comparison, "many")
    at = open_page("pages/5_evaluate.py")
    at.session_state["evaluate_tab"] = "Many masks"
    return ran(at)


def charts(at: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def domains_of(chart: dict) -> list[str]:
    return [title["text"] for title in chart["layout"]["annotations"]]


def box(at: AppTest, label: str):
    return next(one for one in at.multiselect if one.label == label)


@pytest.mark.slow
def test_of_many_domains_six_are_drawn_and_the_page_says_how_many_are_not(open_page: OpenPage) -> None:
    at = shown(open_page, made(9, n_criteria=2))
    first = [f"domain {i}" for i in range(6)]
    for chart in charts(at)[:2]:
        assert domains_of(chart) == first
    assert "3 of 9 domains are not drawn" in words(at)
    front = next(one for one in at.button_group if one.key == "compare_front")
    front.set_value("retention, domain 1")
    box(ran(at), "Domains drawn").set_value(["domain 8", "domain 6"])
    for chart in charts(ran(at))[:2]:
        assert domains_of(chart) == ["domain 6", "domain 8"]
    assert "7 of 9 domains are not drawn" in words(at)
    table = next(frame.value for frame in at.dataframe if "methods" in frame.value.columns)
    assert {f"retention, domain {i}" for i in range(9)} <= set(table.columns)
    box(at, "Domains drawn").set_value([])
    assert domains_of(charts(ran(at))[0]) == first


def test_few_domains_are_all_drawn_without_a_choice(open_page: OpenPage) -> None:
    at = shown(open_page, made(6, n_criteria=2))
    assert not [one for one in at.multiselect if one.label == "Domains drawn"]
    assert "not drawn" not in words(at)
    assert len(domains_of(charts(at)[0])) == 6


def test_a_figure_is_built_again_only_when_what_it_shows_changes(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    def watched(name: str, real: Callable) -> Callable:
        return lambda *args, **more: (built.append(name), real(*args, **more))[1]

    for module, name in ((curves, "retention_curve"), (front, "front_chart")):
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    at = ran(shown(open_page, made(7, n_criteria=2)))
    assert built == ["retention_curve", "front_chart"]
    box(at, "Methods with bands").set_value(["criterion 0"])
    ran(at)
    assert built == ["retention_curve", "front_chart"] * 2
    box(at, "Domains drawn").set_value(["domain 6"])
    ran(at)
    assert built == [*["retention_curve", "front_chart"] * 2, "retention_curve"]


def test_the_front_goes_over_measured_time_where_two_masks_were_timed(open_page: OpenPage) -> None:
    comparison = made()
    at = shown(open_page, comparison)
    assert not [one for one in at.button_group if one.key == "compare_saved"]
    assert "For a front over measured time, time two of these masks or more" in words(at)
    shares, speeds = [[0.1] * 8] * 2, [[1.0], [2.0]]
    for mask, ms in zip(comparison.masks[:2], (8.0, 7.0), strict=True):
        cost = Cost(mask, MODEL, "cpu", 2, 3, 9, 8, (4, 3), (4, 3), [[10.0], [ms]], speeds, shares)
        keep_cost(workspace(), cost, "timed")
    box = next(one for one in ran(at).button_group if one.key == "compare_saved")
    assert box.options == ["Parameters", "Prefill time", "Decode time"]
    box.set_value("prefill time")
    chart = charts(ran(at))[2]
    drawn = {x for trace in chart["data"] if trace.get("customdata") for x in numbers(trace["x"])}
    assert sorted(drawn) == pytest.approx([0.7, 0.8])
    assert chart["layout"]["xaxis"]["title"]["text"] == "prefill time saved"
    assert f"{len(comparison.masks) - 2} other masks: not timed like these, so not drawn" in words(at)


def numbers(values) -> list[float]:
    """Return an array of a chart, which may come as bytes."""
    if not isinstance(values, dict):
        return list(map(float, values))
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()


def test_a_part_of_a_comparison_has_the_numbers_of_the_whole() -> None:
    whole = made(5, n_shared=200)
    part = whole.only(("domain 3", "domain 1"))
    assert part.domains == ("domain 1", "domain 3")
    assert part.n_shared == 80
    for told in (retention_curves, lambda comparison: regimes(comparison).drop(columns="regime")):
        frame = told(whole)
        wanted = frame[frame["domain"].isin(part.domains)].reset_index(drop=True)
        pd.testing.assert_frame_equal(
            told(part).sort_values(["domain", "budget"], kind="stable", ignore_index=True),
            wanted.sort_values(["domain", "budget"], kind="stable", ignore_index=True),
        )
    assert whole.only(whole.domains) is whole


def test_methods_with_bands_are_the_best_over_all_domains_and_none_that_fall_together() -> None:
    comparison = made(3)
    twin = comparison.ways[comparison.ways["method"] == "criterion 2"].assign(method="twin")
    comparison = replace(comparison, ways=pd.concat([twin, comparison.ways], ignore_index=True))
    best = _best_methods(comparison, mask_table(comparison))
    frame = retention_curves(comparison)
    worst = {
        method: rows.groupby("budget")["value"].min().mean() for method, rows in frame.groupby("method", sort=False)
    }
    assert [worst[method] for method in best] == sorted((worst[method] for method in best), reverse=True)
    assert set(worst) - set(best) in ({"twin"}, {"criterion 2"})


def test_prompts_without_an_answer_are_said_to_be_scored_on_the_dense_response(open_page: OpenPage) -> None:
    comparison = made()
    comparison.dense.by_prompt.loc[:2, "answer_source"] = "dense"
    at = shown(open_page, comparison)
    assert "3 of 80 prompts have no answer of their own: they are scored on the dense model's response" in words(at)


def test_methods_that_lack_a_budget_are_told_from_those_without_any_mask(open_page: OpenPage) -> None:
    comparison = made()
    ways = comparison.ways
    lacking = ways["method"].str.endswith("spaced") & (ways["budget"] == 3)
    left_out = {
        **dict.fromkeys(ways["method"][lacking], "3 layers: too few. Lower the budget or the gap."),
        "Damage": "Damage needs measuring.",
        "random": "1 layer: it cannot run.",
    }
    at = shown(open_page, replace(comparison, ways=ways[~lacking].reset_index(drop=True), left_out=left_out))
    assert {one.label for one in at.expander} >= {
        "4 methods without a mask at budget 3",
        "Why masks of 2 methods are missing",
    }
    said = words(at)
    assert "Damage needs measuring" in said
    assert "criterion 3, spaced" in said
    assert "Lower the budget" not in said


def test_the_table_tells_near_its_left_who_chose_a_mask(open_page: OpenPage) -> None:
    comparison = made()
    extra = comparison.ways.iloc[:1]
    more = [extra.assign(method=name) for name in ("other", "third", "other")]
    at = shown(open_page, replace(comparison, ways=pd.concat([comparison.ways, *more], ignore_index=True)))
    table = next(frame for frame in at.dataframe if "methods" in frame.value.columns)
    assert list(table.proto.column_order)[:3] == ["budget", "dropped", "chosen_by"]
    row = table.value.loc[0]
    first, *others = row["methods"].split("; ")
    assert {"other", "third"} <= set(others)
    assert row["chosen_by"] == f"{first} and {len(others)} more"
    alone = table.value[~table.value["methods"].str.contains("; ")]
    assert len(alone)
    assert alone["chosen_by"].tolist() == alone["methods"].tolist()


def test_a_table_is_written_as_csv_only_when_it_is_asked_for(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda frame, **_: written.append(len(frame)) or "")
    at = shown(open_page, made())
    assert next(one for one in at.get("download_button") if one.proto.label == "CSV")
    assert not written


@pytest.mark.parametrize("above", [0.0, 0.5])
def test_values_beyond_the_axis_are_spoken_of_where_there_are_some(open_page: OpenPage, above: float) -> None:
    said = words(shown(open_page, made(above=above)))
    for sentence in ("A triangle at the top is a value above 1.15", "A triangle at the top is a mask above 1.15"):
        assert (sentence in said) == (above > 0)


def plain(at: AppTest) -> str:
    """Return all text on the page, without the marks that keep it from being live."""
    return words(at).replace("\\", "")


def test_the_family_of_a_verdict_is_stated_and_can_be_chosen(open_page: OpenPage) -> None:
    at = shown(open_page, made())
    family = box(at, "Methods compared")
    assert family.value == [f"c{n}" for n in range(4)]
    said = plain(at)
    assert "Compared: c0, c1, c2 and c3; " in said
    assert re.search(r"6 verdicts, corrected \(Holm\) for their \d+ tests", said)
    family.set_value(["c0", "c2"])
    assert "Compared: c0 and c2; 2 different masks a budget." in plain(ran(at))


def test_prompts_of_one_picture_are_said_to_be_one_group_without_interval_or_verdict(open_page: OpenPage) -> None:
    comparison = made(1)
    frame = with_groups(comparison.dense.by_prompt, ["one"] * 40)
    tied = replace(comparison, dense=replace(comparison.dense, by_prompt=frame))
    assert retention_curves(tied)[["low", "high"]].isna().all().all()
    said = plain(shown(open_page, tied))
    assert "40 prompts in 1 group, none of which the masks were chosen on." in said
    assert (
        "(40 prompts in 1 group): too few prompts that the dense model answers (40 prompts in 1 group); no verdict."
        in said
    )
    assert "Verdicts need two methods at least, and 5 groups of prompts" in said
