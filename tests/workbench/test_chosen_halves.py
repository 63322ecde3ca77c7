"""A comparison of masks that are chosen on one half and reported on the other keeps what the choice is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlm_analysis import Bench, LoadedModel, PromptSet, answer_of, split_in_halves
from vlm_analysis.selection.compared.answer import best_places
from vlm_analysis.selection.compared.answerwords import choice_line


def test_a_comparison_of_two_halves_is_judged_on_the_choosing_one(
    loaded: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    choose, report = split_in_halves(few)
    bench, asked = Bench(loaded, tmp_path), {"strategies": ["first-k"], "most": 2, "n_draws": 1}
    comparison = bench.open(bench.compare(choose, report, criteria=["block-influence", "linear-cka"], **asked))
    assert comparison.choosing is not None
    assert comparison.chosen_on == comparison.choosing.dense.prompts == choose.fingerprint
    for place, alone in enumerate(bench.scores(choose, comparison.masks)):
        np.testing.assert_array_equal(comparison.choosing.scores["kl_to_dense"][place], alone.by_prompt["kl_to_dense"])
    assert answer_of(comparison, 2).edit == comparison.masks[best_places(comparison.choosing)[2]]
    assert choice_line(answer_of(comparison)) == f"Chosen on {len(choose)} prompts, reported on {len(report)} others."
    same = bench.open(bench.compare(few, criteria=["block-influence"], **asked))
    assert same.choosing is None
