"""Which score tells something, and that every text, chart and table tells that one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from oracles import made_recording

from vlm_analysis import Comparison, Evaluation, PruneMask, mask_table, regimes, retention, retention_interval
from vlm_analysis.cli.results import of_comparison, of_evaluation
from vlm_analysis.evaluation.telling import above_line, telling_line, telling_score, telling_score_of, unanswered_line
from vlm_analysis.export.card import model_card
from vlm_analysis.export.document.document import document_of
from vlm_analysis.export.document.page import document_html
from vlm_analysis.export.story import Story, answer_in, story_of, story_sections
from vlm_analysis.export.story_forms import story_text
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.comparison import open_comparison, save_comparison, ways_frame
from vlm_analysis.selection.compared.findings import retention_curves, telling
from vlm_analysis.selection.strategies.many import RANDOM, Way

DOMAINS = ["art"] * 6 + ["math"] * 6
MODEL = ModelInfo("made", "f" * 64, 8, layer_parameters=(10,) * 8, n_parameters=100)
NO_INFORMATION = ("unknown share", "not defined", "nan", "0% to 0%", "Of the 0 prompts")


def table(agreement: np.ndarray, kl: np.ndarray, nll: np.ndarray, exact: np.ndarray | None = None) -> pd.DataFrame:
    n = len(DOMAINS)
    return pd.DataFrame(
        {
            "id": [str(place) for place in range(n)],
            "domain": DOMAINS,
            "exact_match": np.zeros(n, bool) if exact is None else exact,
            "answer_nll": nll,
            "token_agreement": agreement,
            "kl_to_dense": kl,
            "answer": ["a long answer"] * n,
            "answer_source": ["given"] * n,
            "answer_ids": [[1, 2]] * n,
        }
    )


ONES, ZEROS, NLL = np.ones(12), np.zeros(12), np.linspace(1, 3, 12)
WORSE = np.r_[np.full(6, 0.75), np.full(6, 0.5)]


def dense_of(exact: np.ndarray | None = None) -> Evaluation:
    return Evaluation(PruneMask(8), MODEL, "p" * 64, table(ONES, ZEROS, NLL, exact))


def pruned_of(*scores: np.ndarray) -> Evaluation:
    return Evaluation(PruneMask(8, [3]), MODEL, "p" * 64, table(*scores))


FREE = dense_of()
CASES = {
    "token_agreement": pruned_of(WORSE, 1 - WORSE, NLL + 1),
    "kl_to_dense": pruned_of(ONES, np.full(12, 0.5), NLL + 1),
    "answer_nll": pruned_of(ONES, ZEROS, NLL + 1),
}


class TestChoice:
    def test_exact_match_where_the_dense_model_matches_any_answer(self) -> None:
        right = np.zeros(12, bool)
        assert telling_score_of(dense_of(right), CASES["token_agreement"]) == "token_agreement"
        right[7] = True
        assert telling_score_of(dense_of(right), CASES["token_agreement"]) == "exact_match"

    @pytest.mark.parametrize("metric", CASES)
    def test_else_the_first_that_says_something(self, metric: str) -> None:
        assert telling_score_of(FREE, CASES[metric]) == metric
        assert telling_line(metric).startswith("The dense model matches no answer exactly, so the score")

    def test_where_nothing_differs_it_is_agreement(self) -> None:
        assert telling_score_of(FREE, replace(FREE, edit=PruneMask(8, [3]))) == "token_agreement"
        assert telling_score_of(FREE) == "token_agreement"
        assert telling_line("exact_match") == ""

    def test_an_edit_may_have_fewer_prompts_than_the_dense_model(self) -> None:
        few = CASES["token_agreement"]
        few = replace(few, by_prompt=few.by_prompt.iloc[[7, 2]].reset_index(drop=True))
        assert telling_score_of(FREE, few) == "token_agreement"

    def test_broken_scores_say_nothing(self) -> None:
        broken = {name: np.full((1, 12), np.nan) for name in ("token_agreement", "kl_to_dense")}
        assert (
            telling_score(FREE.by_prompt, {**broken, "answer_nll": NLL[None] + 1, "exact_match": np.zeros((1, 12))})
            == "answer_nll"
        )


class TestRetention:
    def test_of_kl_and_nll_it_is_1_for_the_dense_model_and_falls(self) -> None:
        same = replace(FREE, edit=PruneMask(8, [3]))
        for metric, less in (("kl_to_dense", np.exp(-0.5)), ("answer_nll", np.exp(-1))):
            assert retention(same, FREE, metric).tolist() == [1, 1]
            np.testing.assert_allclose(retention(CASES[metric], FREE, metric), less)
            assert retention(CASES[metric], FREE, metric).index.tolist() == ["art", "math"]
            assert np.isnan(retention_interval(CASES[metric], FREE, "art", metric=metric)).all()  # all prompts agree
            spread = CASES[metric].by_prompt.assign(**{metric: FREE.by_prompt[metric] + np.tile([0.0, 1.0], 6)})
            low, high = retention_interval(replace(CASES[metric], by_prompt=spread), FREE, "art", metric=metric)
            assert low < (1 + np.exp(-1)) / 2 < high

    def test_a_card_has_no_retention_of_nothing(self) -> None:
        card = model_card(PruneMask(8, [3]), MODEL, "command", CASES["token_agreement"], FREE)
        assert "nan" not in card
        assert "| `art` | 6 | 0.0% | 75.0% |" in card
        assert "matches no answer exactly, so the score in its place is agreement with the dense model" in card

    def test_the_command_line_says_so_too(self) -> None:
        told = of_evaluation(CASES["token_agreement"], FREE, None).text
        assert "The dense model matches no answer exactly" in told
        assert "0.75" in told


def comparison_of(dense: Evaluation, by_metric: dict[str, np.ndarray]) -> Comparison:
    masks = [PruneMask(8, [layer], name=f"without {layer}") for layer in (2, 3, 5)]
    names = [("one", "one", "first-k"), ("two", "two", "first-k"), (RANDOM, None, "random-draw")]
    ways = [
        Way(name, criterion, strategy, None, 1, 0, mask)
        for (name, criterion, strategy), mask in zip(names, masks, strict=True)
    ]
    examples = pd.DataFrame([("art", "q?", "said", "other")], columns=["domain", "question", "dense", "pruned"])
    return Comparison(dense, tuple(masks), by_metric, ways_frame(ways, masks), "c" * 64, 0, {}, examples)


def free_comparison() -> Comparison:
    agreement = np.stack([WORSE, WORSE**2, WORSE**3])
    scores = {
        "exact_match": np.zeros((3, 12)),
        "token_agreement": agreement,
        "kl_to_dense": 1 - agreement,
        "answer_nll": NLL + 1 - agreement,
    }
    return comparison_of(FREE, scores)


def story() -> Story:
    recording = made_recording([("art", np.linspace(0.1, 0.9, 8)), ("math", np.linspace(0.9, 0.2, 8))])
    return story_of(free_comparison(), recording)


class TestFreeFormAnswers:
    def test_curves_fronts_and_regimes_are_of_the_score_that_tells(self, tmp_path: Path) -> None:
        comparison = open_comparison(save_comparison(free_comparison(), tmp_path / "one.npz"))
        assert telling(comparison) == "token_agreement"
        curve = retention_curves(comparison)
        assert curve.set_index(["method", "domain"])["value"].loc[("one", "math")] == pytest.approx(0.5)
        assert np.isfinite(curve["value"]).all()
        masks = mask_table(comparison)
        assert masks["worst"].tolist() == pytest.approx([0.5, 0.25, 0.125])
        assert masks["on_front"].tolist() == [True, False, False]
        assert (regimes(comparison)["n_answered"] == 6).all()
        assert "agreement with the dense model" in of_comparison(comparison, None).text

    def test_the_story_tells_it_and_says_so(self) -> None:
        told = story()
        texts = {section.heading: section.text for section in story_sections(told)}
        kept = texts["Retention over the number of dropped layers"]
        assert kept.startswith("The dense model matches no answer exactly")
        assert "keeps 75% of its choices of tokens in art answers" in kept
        assert "math suffers most: token agreement goes from 100% to 50%" in texts["What it costs each domain"]
        assert "In 12 of 12 answers the pruned model chooses another token" in texts["What broke"]
        whole = story_text(told) + document_html(document_of(answer_in(told), told.recording))
        prose = " ".join(section.text for section in story_sections(told))
        assert not [words for words in NO_INFORMATION if words in prose]
        assert "dense model (the reference answer)" not in whole

    def test_the_charts_have_bars_and_points(self) -> None:
        figures = {section.heading: section.figure for section in story_sections(story())}
        bars = figures["What it costs each domain"].data
        assert [bar.x.tolist() for bar in bars if bar.type == "bar"] == [[1.0, 1.0], [0.75, 0.5]]

    def test_in_nats_the_story_tells_nats(self) -> None:
        same = np.ones((3, 12))
        scores = {**free_comparison().scores, "token_agreement": same, "kl_to_dense": np.full((3, 12), 0.25)}
        told = story_of(comparison_of(FREE, scores), story().recording)
        texts = {section.heading: section.text for section in story_sections(told)}
        assert told.metric == "kl_to_dense"
        assert "KL to dense goes from 0.00 nats to 0.25 nats" in texts["What it costs each domain"]
        assert "78% of its predictions in art answers" in texts["Retention over the number of dropped layers"]


class TestPromptsWithoutAnswers:
    """The dense model is always right on its own response, so such prompts say nothing of whether exact match tells something."""

    @staticmethod
    def beside(n_own: int, made: Evaluation) -> Evaluation:
        source = ["dense response"] * n_own + ["given"] * (len(DOMAINS) - n_own)
        exact = np.r_[np.ones(n_own, bool), np.zeros(len(DOMAINS) - n_own, bool)]
        return replace(made, by_prompt=made.by_prompt.assign(answer_source=source, exact_match=exact))

    def test_they_do_not_decide_which_score_tells(self) -> None:
        dense, pruned = self.beside(1, FREE), self.beside(1, CASES["token_agreement"])
        assert telling_score_of(dense, pruned) == "token_agreement"
        assert telling_score_of(self.beside(12, FREE), self.beside(12, CASES["token_agreement"])) == "exact_match"

    @pytest.mark.parametrize(
        ("n_own", "said"),
        [
            (0, ""),
            (1, "1 of 12 prompts has no answer of its own: it is scored"),
            (3, "3 of 12 prompts have no answer of their own: they are scored"),
        ],
    )
    def test_their_number_is_said_wherever_scores_are(self, n_own: int, said: str) -> None:
        dense, pruned = self.beside(n_own, FREE), self.beside(n_own, CASES["token_agreement"])
        assert unanswered_line(dense).startswith(said)
        assert bool(unanswered_line(dense)) == bool(said)
        assert said in of_evaluation(pruned, dense, None).text


def test_an_interval_that_ends_above_the_dense_model_is_explained_and_no_other() -> None:
    assert "may end above 100 %" in above_line([0.9, 1.02])
    assert above_line([0.9, 1.0, float("nan")]) == ""
    right = np.arange(12) > 0
    zeros = np.zeros(12)
    dense = Evaluation(
        PruneMask(8, ()), MODEL, "p" * 64, table(zeros, zeros, zeros, right).assign(answer_source="given")
    )
    better = replace(dense, edit=PruneMask(8, (3,)), by_prompt=dense.by_prompt.assign(exact_match=True))
    assert "may end above 100 %" in of_evaluation(better, dense, None).text
    assert "may end above 100 %" not in of_evaluation(dense, dense, None).text
