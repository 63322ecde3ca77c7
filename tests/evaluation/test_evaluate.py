"""Evaluation: the metrics are those of a plain computation prompt by prompt, and exact match is what real decoding writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import ask, changed_copy, ids_of, qwen_layers, same_weights, skipping, weights_of

from vlm_analysis import (
    Cancelled,
    Edit,
    Evaluation,
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    evaluate,
    open_evaluation,
    retention,
    save_evaluation,
)
from vlm_analysis.errors import EvaluationError, MaskError
from vlm_analysis.evaluation.evaluation import COLUMNS, METRICS
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.evaluation.run.metrics import answer_scores

MASK = PruneMask(16, (5, 11))
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def dense(loaded: LoadedModel, few: PromptSet) -> Evaluation:
    return evaluate(loaded, few)


@pytest.fixture(scope="module")
def pruned(loaded: LoadedModel, few: PromptSet) -> Evaluation:
    return evaluate(loaded, few, MASK)


@pytest.fixture(scope="module")
def bare(few: PromptSet) -> PromptSet:
    """The prompts without their answers."""
    return PromptSet(Prompt(p.images, p.question, p.domain, p.id) for p in few)


@torch.no_grad()
def log_probs(loaded: LoadedModel, model: Any, prompt: Prompt, answer: list[int]) -> np.ndarray:
    """Return the float64 log-probabilities at the answer positions, from one whole forward pass of this prompt alone."""
    logits = model(**ask(loaded, prompt, answer), use_cache=False).logits[0, -len(answer) - 1 : -1].double().numpy()
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def same_numbers(one: Evaluation, other: Evaluation) -> None:
    assert list(one.by_prompt["id"]) == list(other.by_prompt["id"])
    for metric in METRICS:
        np.testing.assert_allclose(one.by_prompt[metric].astype(float), other.by_prompt[metric].astype(float), **CLOSE)


class TestMetrics:
    @pytest.mark.parametrize("dropped", [(), (5, 11), pytest.param((2, 3, 4, 9, 14), marks=pytest.mark.slow)], ids=str)
    def test_they_equal_a_plain_float64_reckoning(
        self, loaded: LoadedModel, few: PromptSet, dropped: tuple[int, ...]
    ) -> None:
        found = evaluate(loaded, few, PruneMask(16, dropped)).by_prompt
        other = skipping(loaded.model, qwen_layers, dropped)
        for row, prompt in zip(found.itertuples(), few, strict=True):
            assert prompt.answer is not None
            ids = ids_of(loaded, prompt.answer)
            base, cut = (log_probs(loaded, model, prompt, ids) for model in (loaded.model, other))
            choices = cut.argmax(1)
            assert row.exact_match == (choices.tolist() == ids)
            assert row.answer_nll == pytest.approx(-np.mean([cut[i, token] for i, token in enumerate(ids)]), abs=1e-5)
            assert row.token_agreement == pytest.approx(np.mean(choices == base.argmax(1)), abs=1e-12)
            assert row.kl_to_dense == pytest.approx((np.exp(base) * (base - cut)).sum(1).mean(), abs=1e-5)
            assert list(row.answer_ids) == ids
            assert (row.answer, row.answer_source, row.domain) == (prompt.answer, "given", prompt.domain)

    def test_the_dense_model_agrees_with_itself(self, dense: Evaluation) -> None:
        assert (dense.by_prompt["token_agreement"] == 1).all()
        assert (dense.by_prompt["kl_to_dense"] == 0).all()
        assert dense.is_dense

    def test_a_mask_that_drops_nothing_is_the_dense_model(
        self, loaded: LoadedModel, few: PromptSet, dense: Evaluation
    ) -> None:
        empty = evaluate(loaded, few, PruneMask(16))
        pd.testing.assert_frame_equal(empty.by_prompt, dense.by_prompt)

    def test_batches_of_eight_give_the_numbers_of_batches_of_one(
        self, loaded: LoadedModel, few: PromptSet, pruned: Evaluation
    ) -> None:
        same_numbers(evaluate(loaded, few, MASK, batch_size=1), pruned)

    def test_kl_of_worked_numbers(self) -> None:
        sure, even = np.log(np.array([[0.75, 0.25]], np.float32)), np.log(np.array([[0.5, 0.5]], np.float32))
        scores = answer_scores(even, sure, [0])
        assert scores["kl_to_dense"] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-7)
        assert scores["answer_nll"] == pytest.approx(math.log(2), abs=1e-7)

    def test_a_token_the_dense_model_rules_out_adds_nothing(self) -> None:
        with np.errstate(divide="ignore"):
            sure, even = np.log(np.array([[1, 0]], np.float32)), np.log(np.array([[0.5, 0.5]], np.float32))
        assert answer_scores(even, sure, [0])["kl_to_dense"] == pytest.approx(math.log(2), abs=1e-7)


class TestReference:
    def test_it_changes_no_number(
        self, loaded: LoadedModel, few: PromptSet, dense: Evaluation, pruned: Evaluation, tmp_path: Path
    ) -> None:
        same_numbers(evaluate(loaded, few, MASK, reference=dense), pruned)
        reopened = open_evaluation(save_evaluation(dense, tmp_path / "dense.json"))
        assert reopened.dense_log_probs is None
        same_numbers(evaluate(loaded, few, MASK, reference=reopened), pruned)

    def test_the_dense_model_is_not_run_again(
        self, loaded: LoadedModel, few: PromptSet, dense: Evaluation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called: list[int] = []
        handle = loaded.model.model.language_model.register_forward_hook(lambda *_: called.append(1))
        try:
            evaluate(loaded, few, reference=None)
            runs = len(called)
        finally:
            handle.remove()
        handle = qwen_layers(loaded.model)[5].register_forward_hook(lambda *_: called.append(1))
        called.clear()
        try:
            evaluate(loaded, few, PruneMask(16, (5,)), reference=dense)  # layer 5 runs in the dense model only
        finally:
            handle.remove()
        assert runs > 0
        assert not called

    def test_a_wrong_reference_is_refused(
        self, loaded: LoadedModel, few: PromptSet, dense: Evaluation, pruned: Evaluation
    ) -> None:
        with pytest.raises(EvaluationError, match="must be the dense evaluation; it drops layers"):
            evaluate(loaded, few, MASK, reference=pruned)
        with pytest.raises(EvaluationError, match="another model or other prompts"):
            evaluate(loaded, few[:3], MASK, reference=dense)
        other = changed_copy(loaded)
        with torch.no_grad():
            other.model.get_parameter("lm_head.weight")[0, 0] += 1
        with pytest.raises(EvaluationError, match="another model or other prompts"):
            evaluate(other, few, MASK, reference=dense)

    def test_a_mask_of_another_size_is_refused(self, loaded: LoadedModel, few: PromptSet) -> None:
        with pytest.raises(MaskError, match="expected one for 16 layers"):
            evaluate(loaded, few, PruneMask(17, (3,)))


class TestPromptsWithoutAnswers:
    def test_they_are_scored_on_the_dense_response(self, loaded: LoadedModel, bare: PromptSet) -> None:
        found = evaluate(loaded, bare).by_prompt
        assert found["exact_match"].all()
        assert (found["answer_source"] == "dense response").all()
        assert list(found["answer"]) == [respond(loaded, prompt) for prompt in bare]
        assert all(len(ids) <= 64 for ids in found["answer_ids"])

    def test_reference_or_not_the_pruned_numbers_are_the_same(
        self, loaded: LoadedModel, bare: PromptSet, tmp_path: Path
    ) -> None:
        first = evaluate(loaded, bare)
        reopened = open_evaluation(save_evaluation(first, tmp_path / "dense.json"))
        alone = evaluate(loaded, bare, MASK)
        for reference in (first, reopened):
            found = evaluate(loaded, bare, MASK, reference=reference)
            same_numbers(found, alone)
            assert (found.by_prompt["answer_source"] == "dense response").all()


class TestByDomain:
    def test_it_is_the_mean_over_prompts_of_each_domain(self, pruned: Evaluation, few: PromptSet) -> None:
        table = pruned.by_domain
        assert list(table.index) == ["math", "general"]  # and no total
        assert list(table.columns) == [*METRICS, "n"]
        for domain in table.index:
            rows = [row for row in pruned.by_prompt.to_dict("records") if row["domain"] == domain]
            assert table.loc[domain, "n"] == len(rows) == 3
            for metric in METRICS:
                wanted = math.fsum(float(row[metric]) for row in rows) / len(rows)
                assert table.loc[domain, metric] == pytest.approx(wanted, abs=1e-12)

    def test_retention_is_pruned_over_dense_and_nan_over_nothing(self, dense: Evaluation) -> None:
        def with_matches(matches: list[bool]) -> Evaluation:
            return replace(dense, by_prompt=dense.by_prompt.assign(exact_match=matches))

        base = with_matches([True, True, False, False, False, False])
        found = retention(with_matches([True, False, False, True, True, True]), base)
        assert found["math"] == 0.5
        assert math.isnan(found["general"])


class TestCancelling:
    @pytest.mark.parametrize("mask", [None, MASK], ids=["dense", "pruned"])
    def test_it_leaves_the_dense_model_as_it_was(
        self, loaded: LoadedModel, few: PromptSet, dense: Evaluation, mask: Edit | None
    ) -> None:
        before, config = weights_of(loaded.model), loaded.model.config.to_dict()

        def cancel(done: int, total: int, message: str) -> None:
            if done > 1:
                raise Cancelled

        with pytest.raises(Cancelled):
            evaluate(loaded, few, mask, batch_size=2, on_progress=cancel)
        assert same_weights(loaded.model, before)
        assert loaded.model.config.to_dict() == config
        same_numbers(evaluate(loaded, few), dense)


class TestFiles:
    def test_a_saved_evaluation_opens_as_it_was(self, pruned: Evaluation, tmp_path: Path) -> None:
        opened = open_evaluation(save_evaluation(pruned, tmp_path / "deep" / "pruned.json"))
        assert (opened.mask, opened.model, opened.prompts) == (pruned.mask, pruned.model, pruned.prompts)
        pd.testing.assert_frame_equal(opened.by_prompt, pruned.by_prompt, check_exact=True)
        pd.testing.assert_frame_equal(opened.by_domain, pruned.by_domain, check_exact=True)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_score_that_is_no_number_is_saved_and_opens(
        self, dense: Evaluation, tmp_path: Path, value: float
    ) -> None:
        frame = dense.by_prompt.copy()
        frame.loc[1, "answer_nll"] = value
        path = save_evaluation(replace(dense, by_prompt=frame), tmp_path / "odd.json")
        json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)  # no NaN or Infinity: they are no JSON
        opened = open_evaluation(path).by_prompt["answer_nll"]
        assert not np.isfinite(opened[1])
        assert opened.drop(1).equals(frame["answer_nll"].drop(1))

    @pytest.mark.parametrize("share", [0, 0.2, 0.9])
    def test_an_evaluation_cut_short_is_refused(self, dense: Evaluation, tmp_path: Path, share: float) -> None:
        path = save_evaluation(dense, tmp_path / "dense.json")
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(EvaluationError, match=r"dense\.json is not a whole evaluation.*Evaluate again"):
            open_evaluation(path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda content: content.update(kind="strata-mask"),
            lambda content: content.update(schema_version=2),
            lambda content: content.update(by_prompt=[]),
            lambda content: content.update(by_prompt=3),
            lambda content: content.update(model={"name": "m"}),
            lambda content: content["mask"].update(numbering=2),
            lambda content: content["by_prompt"][0].update(answer_nll="high"),
            lambda content: content["by_prompt"][0].pop("exact_match"),
            lambda content: content["by_prompt"][0].update(exact_match=None),
        ],
        ids=["kind", "version", "no rows", "rows are a number", "half a model", "mask from 2", "words", "lost", "null"],
    )
    def test_a_wrong_evaluation_is_refused_in_words(
        self, dense: Evaluation, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
    ) -> None:
        path = save_evaluation(dense, tmp_path / "dense.json")
        content = json.loads(path.read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(EvaluationError):
            open_evaluation(path)

    @pytest.mark.parametrize("data", [b"[]", b"null", b"\xff", b"[" * 100_000], ids=lambda data: repr(data[:8]))
    def test_what_is_no_evaluation_is_refused_in_words(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "file.json").write_bytes(data)
        with pytest.raises(EvaluationError):
            open_evaluation(tmp_path / "file.json")
        with pytest.raises(EvaluationError):
            open_evaluation(tmp_path / "nowhere.json")

    def test_a_table_without_a_column_is_refused(self, dense: Evaluation) -> None:
        for column in COLUMNS:
            with pytest.raises(EvaluationError, match=column):
                replace(dense, by_prompt=dense.by_prompt.drop(columns=column))
