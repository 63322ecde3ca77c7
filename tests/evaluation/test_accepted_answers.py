"""Where a prompt has several accepted answers, any of them counts: in evaluations, sweeps, kept scores, files, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import ask, ids_of, qwen_layers, skipping

from vlm_analysis import (
    Evaluation,
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    evaluate,
    open_evaluation,
    save_evaluation,
    sweep,
)
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.evaluation import accepted_answers
from vlm_analysis.evaluation.matching import normalised_match, numeric_match
from vlm_analysis.evaluation.scores import ScoreStore, best_of_accepted
from vlm_analysis.evaluation.telling import accepted_line
from vlm_analysis.export.card import model_card
from vlm_analysis.words import any_of

MASK = PruneMask(16, (2, 5, 11))
METRICS = ["exact_match", "answer_nll", "token_agreement", "kl_to_dense"]


@pytest.fixture(scope="module")
def prompts(few: PromptSet) -> PromptSet:
    """Prompts whose right answer is the last, the second, or the only one; one with choices."""
    right = [str(prompt.answer) for prompt in few]
    return PromptSet(
        [
            replace(few[0], answer="none of it", answers=("at the top", right[0])),
            replace(few[1], answer="7777", answers=(right[1],)),
            few[2],
            replace(few[3], answers=("a red thing",), choices=(right[3], "no such thing")),
        ]
    )


@pytest.fixture(scope="module")
def dense(loaded: LoadedModel, prompts: PromptSet) -> Evaluation:
    return evaluate(loaded, prompts, batch_size=2)


@torch.no_grad()
def log_probs(loaded: LoadedModel, model: Any, prompt: Prompt, ids: list[int]) -> np.ndarray:
    logits = model(**ask(loaded, prompt, ids), use_cache=False).logits[0, -len(ids) - 1 : -1].double().numpy()
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def test_scores_equal_a_plain_float64_reckoning_over_all_accepted_answers(
    loaded: LoadedModel, prompts: PromptSet, dense: Evaluation
) -> None:
    found = evaluate(loaded, prompts, MASK, reference=dense, responses=True).by_prompt
    other = skipping(loaded.model, qwen_layers, MASK.dropped)
    for prompt, row in zip(prompts, found.itertuples(), strict=True):
        answers = prompt.answers or (str(prompt.answer),)
        exact, agreement, nll, kl = [], [], [], []
        for answer in answers:
            ids = ids_of(loaded, answer)
            base, cut = (log_probs(loaded, model, prompt, ids) for model in (loaded.model, other))
            exact.append(cut.argmax(1).tolist() == ids)
            agreement.append(np.mean(cut.argmax(1) == base.argmax(1)))
            nll.append(-np.mean([cut[i, token] for i, token in enumerate(ids)]))
            kl.append((np.exp(base) * (base - cut)).sum(1).mean())
        assert row.exact_match == any(exact)
        assert row.token_agreement == pytest.approx(max(agreement), abs=1e-12)
        assert (row.answer_nll, row.kl_to_dense) == pytest.approx((nll[0], kl[0]), abs=1e-5)
        assert row.normalised_match == any(normalised_match(row.response, answer) for answer in answers)
        assert row.numeric_match == any(numeric_match(row.response, answer) for answer in answers)
        assert (row.answer, row.answers) == (prompt.answer, list(prompt.answers) if prompt.answers else None)


def test_the_dense_model_is_right_where_any_answer_is_and_its_response_is_what_it_wrote(
    loaded: LoadedModel, prompts: PromptSet, dense: Evaluation
) -> None:
    assert dense.by_prompt["exact_match"].tolist() == [True] * 4
    assert (dense.by_prompt["token_agreement"] == 1).all()
    written = evaluate(loaded, prompts[:2], responses=True).by_prompt
    assert [[row.response] for row in written.itertuples()] == [row.answers[-1:] for row in written.itertuples()]
    assert (written["normalised_match"] == 1).all()
    assert dense.by_prompt["choice_match"].tolist()[3] == 1
    assert dense.by_prompt["choice_match"].isna().tolist()[:3] == [True] * 3


def test_a_sweep_gives_the_same_to_the_last_bit_and_goes_on_from_kept_scores(
    loaded: LoadedModel, prompts: PromptSet, dense: Evaluation, tmp_path: Path
) -> None:
    wanted = evaluate(loaded, prompts, MASK, reference=dense, batch_size=2)
    for reference in (None, dense):
        (found,) = sweep(loaded, prompts, [MASK], reference=reference, batch_size=2, folder=tmp_path / "kept")
        pd.testing.assert_frame_equal(found.by_prompt, wanted.by_prompt, check_exact=True)


def test_they_are_kept_in_the_file(dense: Evaluation, tmp_path: Path) -> None:
    again = open_evaluation(save_evaluation(dense, tmp_path / "dense.json"))
    pd.testing.assert_frame_equal(again.by_prompt, dense.by_prompt)
    broken = dense.by_prompt.assign(answers=[[1], None, None, None])
    with pytest.raises(EvaluationError, match="answers"):
        open_evaluation(save_evaluation(replace(dense, by_prompt=broken), tmp_path / "broken.json"))


def test_it_is_said_how_many_answers_count(dense: Evaluation, prompts: PromptSet) -> None:
    line = accepted_line(dense)
    assert line.startswith("On 3 of 4 prompts any of 2 to 3 accepted answers counts: exact match, token agreement and")
    assert line in model_card(MASK, dense.model, "make it", dense)
    plain = replace(dense, by_prompt=dense.by_prompt.drop(columns="answers"))
    assert accepted_line(plain) == ""
    assert accepted_answers(plain.by_prompt) == [[prompt.answer] for prompt in prompts]
    assert any_of(1) == "the answer"


def scores(exact: bool, agreement: float, nll: float = 1.0) -> dict[str, Any]:
    return {"exact_match": exact, "answer_nll": nll, "token_agreement": agreement, "kl_to_dense": 0.5}


def test_the_best_of_any_row_counts_once_all_are_scored() -> None:
    rows = {0: scores(False, 0.2, 3.0), 1: scores(True, 1.0), 2: scores(True, 0.1), 3: scores(False, 0.9)}
    best = best_of_accepted(rows, {0: (2, 3)})
    assert best[0] == {"exact_match": True, "answer_nll": 3.0, "token_agreement": 0.9, "kl_to_dense": 0.5}
    assert best[1] == rows[1]
    assert set(best_of_accepted({key: rows[key] for key in (0, 1, 2)}, {0: (2, 3)})) == {1, 2}
    assert np.isnan(best_of_accepted(rows | {3: scores(False, np.nan)}, {0: (2, 3)})[0]["token_agreement"])


def test_every_way_to_read_kept_scores_takes_the_best(tmp_path: Path) -> None:
    store = ScoreStore(16, 3, tmp_path, accepted={0: (2,)})
    store.put("a", [0, 1], [scores(False, 0.2), scores(False, 0.4)])
    assert store.known(["a"], 2).tolist() == [[False, True]]
    store.put("a", [2], [scores(True, 0.7)])
    assert store.known(["a", "b"], 2).tolist() == [[True, True], [False, False]]
    assert store.column("exact_match", ["a"], 2).tolist() == [[1, 0]]
    assert store.column("token_agreement", ["a"], 2).tolist() == [[0.7, 0.4]]
    assert store.of("a")[0] == scores(True, 0.7)
    assert ScoreStore(16, 3, tmp_path).of("a")[0] == scores(False, 0.2)
    store.put("a", [-1, 7], [scores(True, 1.0)] * 2)  # as in a file that something else has changed
    assert store.column("exact_match", ["a"], 3).tolist() == [[1, 0, 1]]
