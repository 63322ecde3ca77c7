"""The Answer of a comparison: the mask is chosen on one half, its numbers and its sentence are of the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from compared import MODEL, made

from vlm_analysis import Comparison, Cost, answer_of, headline, open_comparison, save_comparison
from vlm_analysis.errors import EvaluationError
from vlm_analysis.selection.compared.answer import GAINED, KEPT, LOST, best_places, example_rows, recommended_budget
from vlm_analysis.selection.compared.answerwords import (
    choice_line,
    examples_title,
    provenance,
    retention_title,
    speed_line,
)
from vlm_analysis.selection.compared.comparison import RESPONSES

DOMAINS = ["art"] * 20 + ["math"] * 20
SHARES = np.full(8, 0.1)
CHOOSING = {  # right answers of art and math, of 20 each
    ("one", "first-k", 1): (20, 20),
    ("other", "first-k", 1): (20, 18),
    ("one", "first-k", 2): (20, 19),
    ("other", "first-k", 2): (19, 18),
    ("one", "first-k", 3): (12, 4),
    ("other", "first-k", 3): (4, 12),
}
REPORTING = {
    ("one", "first-k", 1): (20, 19),
    ("other", "first-k", 1): (20, 20),
    ("one", "first-k", 2): (20, 17),
    ("other", "first-k", 2): (20, 20),
    ("one", "first-k", 3): (10, 2),
    ("other", "first-k", 3): (2, 10),
}


def right(counts: tuple[int, int]) -> np.ndarray:
    """Return which of 20 prompts of each domain are right: the last ones, so that the first are lost."""
    return np.concatenate([np.arange(20) >= 20 - count for count in counts]).astype(float)


def of(counts: dict[tuple[str, str, int], tuple[int, int]], domains: list[str] = DOMAINS) -> Comparison:
    return made({way: right(pair) for way, pair in counts.items()}, domains)


@pytest.fixture
def halves() -> Comparison:
    said = [(2, str(row), "how many?", "4 red", "5 red") for row in (20, 21, 22)]
    said.append((2, "0", "what is it?", "a cat", "a cat"))
    responses = pd.DataFrame(said, columns=list(RESPONSES))
    choosing = of(CHOOSING)
    assert choosing.masks == of(REPORTING).masks
    return replace(of(REPORTING), choosing=choosing, layer_shares=SHARES, responses=responses)


def test_the_mask_is_the_best_on_the_choosing_half_and_the_numbers_are_of_the_other(halves: Comparison) -> None:
    answer = answer_of(halves)
    assert (answer.budget, answer.method) == (2, "one")  # though "other" is better on the reporting half
    assert [(one.domain, one.stay, one.of, one.gained) for one in answer.kept] == [
        ("art", 20, 20, 0),
        ("math", 17, 20, 0),
    ]
    assert [(one.stay, one.of) for one in answer.chosen] == [(20, 20), (19, 20)]
    assert answer.kept[1].value == pytest.approx(17 / 20)
    assert answer.kept[1].low < 17 / 20 < answer.kept[1].high
    assert best_places(halves) == {1: 0, 2: 2, 3: 4}


def test_the_recommended_budget_is_the_largest_within_the_tolerance_on_the_choosing_half(halves: Comparison) -> None:
    assert recommended_budget(halves) == 2
    assert answer_of(halves).is_recommended
    assert not answer_of(halves, 1).is_recommended
    worse = of(dict.fromkeys(CHOOSING, (10, 10)))
    assert recommended_budget(replace(halves, choosing=worse)) == 1


def test_the_headline_is_made_of_the_numbers(halves: Comparison) -> None:
    kept = sum(MODEL.layer_parameters[layer] for layer in answer_of(halves).edit.kept)
    saved = 100 * (1 - (kept + MODEL.n_parameters - sum(MODEL.layer_parameters)) / MODEL.n_parameters)
    assert headline(answer_of(halves)) == (
        f"toy can lose 2 of 8 layers: 20 of 20 art and 17 of 20 math answers stay, {saved:.0f}\u00a0% fewer parameters, "
        "expected 1.2 × as fast."
    )
    assert headline(answer_of(halves, 3)).startswith(
        "Losing 3 of 8 layers costs toy answers: 10 of 20 art and 2 of 20 math answers stay"
    )


def test_a_timed_mask_has_a_measured_speed(halves: Comparison) -> None:
    edit = answer_of(halves).edit
    timed = Cost(
        edit, MODEL, "cpu", 1, 1, 9, 8, (4, 3), (4, 3), [[3.0, 3.0], [2.0, 2.0]], [[1, 1], [1, 1]], [SHARES] * 2
    )
    answer = answer_of(halves, costs=[timed])
    assert headline(answer).endswith(", 1.5 × as fast.")
    assert "timed on this machine" in speed_line(answer)
    assert "expected" in speed_line(answer_of(halves, 1, costs=[timed]))
    assert headline(answer_of(replace(halves, layer_shares=np.zeros(0)))).endswith("fewer parameters.")


def test_what_the_numbers_were_chosen_on_is_said(halves: Comparison) -> None:
    assert choice_line(answer_of(halves)) == "Chosen on 40 prompts, reported on 40 others."
    same = replace(halves, choosing=None, n_shared=40)
    assert choice_line(answer_of(same)) == "Chosen and reported on the same prompts (40), which flatters the numbers."
    assert answer_of(same).method == "other"
    assert "was picked on the 40 reported" in choice_line(answer_of(replace(same, n_shared=0)))
    assert choice_line(answer_of(replace(halves, n_shared=3))).startswith("3 of the 40 reported")


def test_the_curve_holds_the_best_mask_of_each_budget_from_the_dense_model_on(halves: Comparison) -> None:
    answer = answer_of(halves)
    math = answer.curve[answer.curve["domain"] == "math"]
    assert math["budget"].tolist() == [0, 1, 2, 3]
    assert math["value"].tolist() == pytest.approx([1, 19 / 20, 17 / 20, 2 / 20])
    assert math["times"].tolist() == pytest.approx([1, 1 / 0.9, 1 / 0.8, 1 / 0.7])
    assert (answer.curve["saved"].diff().dropna() >= 0).all()
    assert answer.budgets == (1, 2, 3)
    others = answer.others.set_index(["method", "budget"])
    assert others.loc[("other", 3), "value"] == pytest.approx(12 / 40)
    first = math["saved"].tolist()[2]
    assert retention_title(answer) == (
        f"Math breaks first: less than 95\u00a0% of its answers from {100 * first:.0f}\u00a0% fewer parameters on"
    )


def test_examples_have_their_outcome_and_their_differing_words(halves: Comparison) -> None:
    answer = answer_of(halves)
    assert [(one.id, one.outcome) for one in answer.examples] == [("20", LOST), ("21", LOST), ("22", LOST), ("0", KEPT)]
    assert [piece for piece in answer.examples[0].edited if piece.changed] == [("5 ", True)]
    assert not any(piece.changed for piece in answer.examples[3].edited)
    assert answer_of(halves, 1).examples == ()
    assert examples_title(answer) == "3 of 40 answers are lost, none is gained"


def test_six_examples_are_lost_gained_and_kept_where_there_are_such() -> None:
    gains = made({("one", "first-k", 1): right((10, 20))}, DOMAINS, dense=right((20, 17)))
    outcomes = [outcome for _, outcome in example_rows(gains, 0)]
    assert outcomes == [LOST] * 4 + [GAINED, KEPT]
    assert [outcome for _, outcome in example_rows(of({("one", "first-k", 1): (20, 20)}), 0)] == [KEPT] * 6
    assert [outcome for _, outcome in example_rows(of({("one", "first-k", 1): (0, 0)}), 0)] == [LOST] * 6
    rows = [row for row, _ in example_rows(gains, 0)]
    assert len(set(rows)) == 6


def test_a_model_that_matches_no_answer_is_told_by_its_tokens(halves: Comparison) -> None:
    free = made({way: np.zeros(40) for way in CHOOSING}, DOMAINS, dense=np.zeros(40))
    agreement = {**free.scores, "token_agreement": np.tile(np.linspace(0.9, 1, 40), (6, 1))}
    answer = answer_of(replace(free, scores=agreement), 1)
    assert answer.metric == "token_agreement"
    assert ": it keeps 92\u00a0% of the dense model's tokens in art and 98\u00a0% in math answers," in headline(answer)
    assert "matches no answer exactly" in dict(provenance(answer))["Score"]


def test_a_comparison_of_halves_opens_as_it_was_saved(halves: Comparison, tmp_path: Path) -> None:
    again = open_comparison(save_comparison(halves, tmp_path / "c.npz"))
    assert again.choosing is not None
    assert headline(answer_of(again)) == headline(answer_of(halves))
    assert answer_of(again).examples == answer_of(halves).examples
    np.testing.assert_array_equal(again.layer_shares, SHARES)
    one_domain = again.only(["art"])
    assert one_domain.choosing is not None
    assert answer_of(one_domain).kept[0].of == 20
    assert answer_of(one_domain).budget == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: {"layer_shares": np.ones(8)}, "sum to less than 1"),
        (lambda c: {"layer_shares": np.zeros(3)}, "shares of the time of 8 layers"),
        (lambda c: {"responses": c.responses.assign(place=9)}, r"masks in 0\.\.5"),
        (lambda c: {"responses": c.responses.assign(id="none")}, "prompts that were evaluated"),
        (lambda c: {"choosing": of({("one", "first-k", 1): (1, 1)})}, "the same masks on the choosing"),
    ],
)
def test_parts_that_do_not_fit_are_refused(halves: Comparison, change, told: str) -> None:
    with pytest.raises(EvaluationError, match=told):
        replace(halves, **change(halves))


def test_a_budget_without_a_mask_is_refused(halves: Comparison) -> None:
    with pytest.raises(EvaluationError, match="among 1, 2, 3, got 7"):
        answer_of(halves, 7)
