"""What the model wrote and which choice it prefers: columns of an evaluation, computed again in plain ways, kept in its file."""

from __future__ import annotations

import gc
import json
import math
import weakref
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
    Evaluation,
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    evaluate,
    open_evaluation,
    retention,
    retention_interval,
    save_evaluation,
    sweep,
)
from vlm_analysis.errors import EvaluationError, PromptError
from vlm_analysis.evaluation.choices import choice_scores
from vlm_analysis.evaluation.evaluation import (
    CHOICE_COLUMNS,
    COLUMNS,
    EXTRA_METRICS,
    METRICS,
    RESPONSE_COLUMNS,
)
from vlm_analysis.evaluation.run import prepared as prepared_module
from vlm_analysis.evaluation.run.evaluate import evaluate_prepared, evaluation_of, write_responses
from vlm_analysis.evaluation.run.prepared import prepare
from vlm_analysis.evaluation.run.sweep import open_scores, sweep_prepared
from vlm_analysis.models import inputs as inputs_module
from vlm_analysis.models.inputs import Encoded, encode

MASK = PruneMask(16, (2, 5, 11))
SMALL = PruneMask(8, (2, 5))


@pytest.fixture(scope="module")
def mixed(few: PromptSet) -> PromptSet:
    """Prompts with choices and an answer, with choices alone, and without choices."""
    wrong = [("7", "a red circle, and a blue one"), ("no", "green"), ("yes", "1 + 1")]
    made = [
        replace(prompt, choices=(texts[0], str(prompt.answer), texts[1]))
        for prompt, texts in zip(few[:3], wrong, strict=True)
    ]
    open_ones = [
        replace(few[3], answer=None, choices=("red", "a blue circle", "top left")),
        replace(few[4], answer=None),
    ]
    return PromptSet([*made, *open_ones, few[5]])


@torch.no_grad()
def log_likelihood(loaded: LoadedModel, model: Any, prompt: Prompt, ids: list[int]) -> np.ndarray:
    """Return the float64 log-probability of each token of an answer, from one whole pass of this prompt alone."""
    logits = model(**ask(loaded, prompt, ids), use_cache=False).logits[0, -len(ids) - 1 : -1].double().numpy()
    shifted = logits - logits.max(1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))[np.arange(len(ids)), ids]


def bare_words(text: str) -> list[str]:
    return "".join(character if character.isalnum() else " " for character in text.lower()).split()


class TestResponses:
    @pytest.mark.parametrize("dropped", [(), MASK.dropped], ids=["dense", "pruned"])
    def test_they_are_what_generation_writes(
        self, loaded: LoadedModel, packs: PromptSet, dropped: tuple[int, ...]
    ) -> None:
        some = packs[::12]
        found = evaluate(loaded, some, PruneMask(16, dropped), responses=True).by_prompt
        other = skipping(loaded.model, qwen_layers, dropped)
        for prompt, row in zip(some, found.itertuples(), strict=True):
            inputs, n = ask(loaded, prompt), len(ids_of(loaded, str(prompt.answer)))
            most = min(n + 16, 64)
            tokens = other.generate(**inputs, max_new_tokens=most, do_sample=False, pad_token_id=0)[
                0, inputs["input_ids"].shape[1] :
            ]
            text = loaded.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            assert row.response == text
            assert row.normalised_match == (bare_words(text) == bare_words(str(prompt.answer)))
            assert row.numeric_match >= row.normalised_match >= row.exact_match
        assert dropped == () or 0 < found["exact_match"].sum() < len(some)

    def test_nothing_is_written_where_the_answer_is_matched(
        self, loaded: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = evaluate(loaded, few, MASK)
        called: list[int] = []
        real = loaded.model.generate
        monkeypatch.setattr(loaded.model, "generate", lambda **how: (called.append(1), real(**how))[1])
        dense = evaluate(loaded, few, responses=True)
        assert dense.by_prompt["response"].tolist() == dense.by_prompt["answer"].tolist()
        assert len(called) == 0
        write_responses(loaded, few, dense)
        assert len(called) == 0
        assert not made.by_prompt["exact_match"].all()

    def test_other_numbers_stay_and_without_asking_there_is_no_column(
        self, loaded: LoadedModel, few: PromptSet
    ) -> None:
        plain, told = evaluate(loaded, few, MASK), evaluate(loaded, few, MASK, responses=True)
        assert list(plain.by_prompt) == list(COLUMNS)
        assert list(told.by_prompt) == [*COLUMNS, *RESPONSE_COLUMNS]
        pd.testing.assert_frame_equal(told.by_prompt[list(COLUMNS)], plain.by_prompt, check_exact=True)
        assert list(plain.by_domain) == [*METRICS, "n"]
        assert list(told.by_domain) == [*METRICS, "normalised_match", "numeric_match", "n"]

    @pytest.mark.parametrize(("n_answer", "most"), [(3, 19), (48, 64), (60, 64), (64, 64), (90, 90)])
    def test_a_response_is_a_little_longer_than_its_answer_at_most(
        self, loaded: LoadedModel, few: PromptSet, n_answer: int, most: int
    ) -> None:
        made = evaluate(loaded, few[:1], MASK)
        table = made.by_prompt.assign(answer_ids=[[7] * n_answer], exact_match=False)
        told: list[int] = []
        real = loaded.model.__class__.generate

        def generate(self: Any, **how: Any) -> Any:
            told.append(how["max_new_tokens"])
            return real(self, **how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loaded.model.__class__, "generate", generate)
            write_responses(loaded, few[:1], replace(made, by_prompt=table))
        assert told == [most]

    def test_they_are_refused_for_another_model_or_other_prompts(self, loaded: LoadedModel, few: PromptSet) -> None:
        made = evaluate(loaded, few[:2])
        with pytest.raises(EvaluationError, match="another model or other prompts"):
            write_responses(loaded, few[:3], made)
        other = changed_copy(loaded)
        with torch.no_grad():
            other.model.get_parameter("lm_head.weight")[0, 0] += 1
        with pytest.raises(EvaluationError, match="another model or other prompts"):
            write_responses(other, few[:2], made)

    def test_writing_reports_each_prompt_and_can_be_cancelled(self, loaded: LoadedModel, few: PromptSet) -> None:
        before = weights_of(loaded.model)
        seen: list[int] = []

        def stop(done: int, total: int, message: str) -> None:
            if message == "writing the responses":
                seen.append(done)
                if done == 2:
                    raise Cancelled

        with pytest.raises(Cancelled):
            evaluate(loaded, few, MASK, responses=True, on_progress=stop)
        assert seen == [0, 1, 2]
        assert same_weights(loaded.model, before)


class TestChoices:
    @pytest.mark.parametrize(
        "dropped", [(), MASK.dropped, pytest.param((2, 3, 4, 9, 14), marks=pytest.mark.slow)], ids=str
    )
    def test_they_equal_a_plain_float64_reckoning(
        self, loaded: LoadedModel, mixed: PromptSet, dropped: tuple[int, ...]
    ) -> None:
        found = evaluate(loaded, mixed, PruneMask(16, dropped)).by_prompt
        other = skipping(loaded.model, qwen_layers, dropped)
        for prompt, row in zip(mixed, found.itertuples(), strict=True):
            if prompt.choices is None:
                assert row.choice is None
                assert math.isnan(row.choice_match)
                assert math.isnan(row.choice_match_norm)
                continue
            each = [log_likelihood(loaded, other, prompt, ids_of(loaded, choice)) for choice in prompt.choices]
            summed, mean = (prompt.choices[int(np.argmax([take(one) for one in each]))] for take in (np.sum, np.mean))
            assert (row.choice, row.choice_match) == (summed, summed == row.answer)
            assert row.choice_match_norm == (mean == row.answer)

    def test_without_an_answer_the_dense_choice_is_the_reference(self, loaded: LoadedModel, mixed: PromptSet) -> None:
        dense = evaluate(loaded, mixed)
        row, prompt = dense.by_prompt.iloc[3], mixed[3]
        assert prompt.choices is not None
        sums = [log_likelihood(loaded, loaded.model, prompt, ids_of(loaded, choice)).sum() for choice in prompt.choices]
        assert (row["answer"], row["answer_source"]) == (prompt.choices[int(np.argmax(sums))], "dense choice")
        assert row["choice_match"] == 1
        assert dense.by_prompt["answer_source"].tolist() == ["given"] * 3 + ["dense choice", "dense response", "given"]
        pruned = evaluate(loaded, mixed, MASK, reference=dense)
        assert pruned.by_prompt["answer"].tolist() == dense.by_prompt["answer"].tolist()
        assert_same(pruned, evaluate(loaded, mixed, MASK))

    def test_a_short_wrong_choice_can_win_the_sum_and_lose_the_mean(self) -> None:
        found = choice_scores(["no", "a long one"], [2.0, 0.9], [2, 5], "a long one")
        assert found == {"choice": "no", "choice_match": 0.0, "choice_match_norm": 1.0}

    def test_of_equally_likely_choices_the_first_is_taken_and_of_none_none(self) -> None:
        assert choice_scores(["a", "b"], [1.0, 1.0], [2, 2], "b")["choice"] == "a"
        assert choice_scores(["a", "b"], [math.inf, 1.0], [2, 2], "b")["choice_match"] == 1
        for nlls in ([math.nan, 1.0], [math.inf, math.inf]):
            assert choice_scores(["a", "b"], nlls, [2, 2], "b") == {
                "choice": None,
                "choice_match": 0.0,
                "choice_match_norm": 0.0,
            }

    def test_a_dense_model_that_prefers_no_choice_is_refused(self, loaded: LoadedModel, mixed: PromptSet) -> None:
        broken = changed_copy(loaded)
        with torch.no_grad():
            broken.model.get_parameter("lm_head.weight").fill_(math.nan)
        with pytest.raises(PromptError, match=r"prefers none of its choices.*nan"):
            evaluate(broken, mixed[3:4])

    def test_prompts_without_choices_keep_their_numbers_beside_others(
        self, small: LoadedModel, few: PromptSet, mixed: PromptSet
    ) -> None:
        alone, beside = (evaluate(small, prompts, SMALL, batch_size=1).by_prompt for prompts in (few, mixed))
        for metric in METRICS:
            assert beside[metric].tolist()[:3] == alone[metric].tolist()[:3]

    @pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 4])
    def test_a_sweep_gives_the_same_to_the_last_bit(
        self, small: LoadedModel, mixed: PromptSet, batch_size: int
    ) -> None:
        masks = [PruneMask(8, layers) for layers in ((5,), (2, 4, 5), ())]
        dense = evaluate(small, mixed, batch_size=batch_size)
        wanted = [evaluate(small, mixed, mask, reference=dense, batch_size=batch_size) for mask in masks]
        for reference in (None, dense):
            for one, other in zip(
                sweep(small, mixed, masks, reference=reference, batch_size=batch_size), wanted, strict=True
            ):
                assert_same(one, other)

    def test_partial_results_of_a_sweep_count_choices_once_all_are_scored(
        self, small: LoadedModel, mixed: PromptSet
    ) -> None:
        seen: list[Evaluation] = []
        (last,) = sweep(small, mixed, [SMALL], batch_size=1, on_partial=lambda _, one: seen.append(one))
        whole = last.by_prompt.set_index("id")
        for partial in seen:
            for row in partial.by_prompt.itertuples():
                assert row.choice is None or row.choice == whole["choice"][row.id]
        assert seen[0].by_prompt["choice_match"].notna().sum() < 4
        assert_same(seen[-1], last)


def assert_same(one: Evaluation, other: Evaluation) -> None:
    pd.testing.assert_frame_equal(one.by_prompt, other.by_prompt, check_exact=True)


class TestMemory:
    def test_encoding_again_changes_no_bit(self, small: LoadedModel, mixed: PromptSet) -> None:
        found = [
            evaluate_prepared(prepare(small, mixed, max_bytes=room), SMALL, None, batch_size=3)
            for room in (0, 50_000, 1 << 30)
        ]
        assert_same(found[0], found[2])
        assert_same(found[1], found[2])
        work = prepare(small, mixed, max_bytes=0)
        store = open_scores(work, 3)
        sweep_prepared(work, [SMALL], None, store=store, batch_size=3)
        assert_same(evaluation_of(work, SMALL, store.of(SMALL.key)), found[2])

    def test_no_more_encodings_live_than_a_batch_holds(
        self, small: LoadedModel, packs: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alive: weakref.WeakSet[Encoded] = weakref.WeakSet()
        most = [0]

        def watched(*args: Any) -> Encoded:
            item = encode(*args)
            alive.add(item)
            most[0] = max(most[0], len(alive))
            return item

        monkeypatch.setattr(inputs_module, "encode", watched)
        monkeypatch.setattr(prepared_module, "encode", watched)
        work = prepare(small, packs[:12], max_bytes=0)
        gc.collect()
        assert most[0] <= 2  # one, and the one before until it is replaced
        evaluate_prepared(work, SMALL, None, batch_size=4)
        assert most[0] == 4
        sweep_prepared(work, [SMALL], None, store=open_scores(work, 4), batch_size=4)
        assert most[0] <= 8  # a batch, and the one before until it is replaced

    def test_what_fits_is_encoded_once(
        self, loaded: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        monkeypatch.setattr(inputs_module, "encode", lambda *args: (asked.append(args[1].id), encode(*args))[1])
        size = sum(value.nbytes for value in encode(loaded, few[0]).tensors.values())
        work = prepare(loaded, few, max_bytes=3 * size)
        asked.clear()
        items = list(work.encoded)
        assert 3 <= len(asked) <= 4
        assert [work.encoded[index].answer_ids for index in (0, -1)] == [items[0].answer_ids, items[5].answer_ids]
        assert [item.n_tokens for item in work.encoded[1:3]] == [item.n_tokens for item in items[1:3]]
        with pytest.raises(IndexError):
            work.encoded[6]


class TestFilesAndRetention:
    @pytest.fixture(scope="class")
    @staticmethod
    def pair(loaded: LoadedModel, mixed: PromptSet) -> tuple[Evaluation, Evaluation]:
        dense = evaluate(loaded, mixed, responses=True)
        return evaluate(loaded, mixed, MASK, reference=dense, responses=True), dense

    def test_a_saved_evaluation_opens_as_it_was(self, pair: tuple[Evaluation, Evaluation], tmp_path: Path) -> None:
        for made in pair:
            path = save_evaluation(made, tmp_path / "made.json")
            json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)
            opened = open_evaluation(path)
            assert_same(opened, made)
            assert list(opened.by_prompt) == [*COLUMNS, *RESPONSE_COLUMNS, *CHOICE_COLUMNS]
            pd.testing.assert_frame_equal(opened.by_domain, made.by_domain, check_exact=True)

    @pytest.mark.parametrize(
        "change",
        [
            lambda row: row.update(response=7),
            lambda row: row.update(normalised_match="yes"),
            lambda row: row.update(numeric_match=0.5),
            lambda row: row.update(choice=["a"]),
            lambda row: row.update(choice_match=[1]),
            lambda row: row.pop("response"),
            lambda row: row.pop("choice_match_norm"),
        ],
        ids=["response", "words", "half", "choice a list", "match a list", "response lost", "match lost"],
    )
    def test_a_damaged_column_is_refused(
        self, pair: tuple[Evaluation, Evaluation], tmp_path: Path, change: Callable[[dict[str, Any]], Any]
    ) -> None:
        path = save_evaluation(pair[0], tmp_path / "made.json")
        content = json.loads(path.read_text("utf-8"))
        change(content["by_prompt"][1])
        path.write_text(json.dumps(content))
        with pytest.raises(EvaluationError, match="is not a whole evaluation"):
            open_evaluation(path)

    def test_domains_have_the_mean_over_the_prompts_that_were_asked(self, pair: tuple[Evaluation, Evaluation]) -> None:
        for made in pair:
            assert made.metrics == (*METRICS, *EXTRA_METRICS)
            for domain, row in made.by_domain.iterrows():
                rows = [one for one in made.by_prompt.to_dict("records") if one["domain"] == domain]
                for metric in EXTRA_METRICS:
                    values = [one[metric] for one in rows if not math.isnan(one[metric])]
                    assert row[metric] == pytest.approx(math.fsum(values) / len(values), abs=1e-12)

    def test_a_column_in_which_nobody_was_asked_is_no_metric(self, pair: tuple[Evaluation, Evaluation]) -> None:
        blank = replace(pair[0], by_prompt=pair[0].by_prompt.assign(choice_match=np.nan))
        assert "choice_match" not in blank.by_domain

    def test_retention_and_its_interval_take_these_metrics(self, pair: tuple[Evaluation, Evaluation]) -> None:
        base, scores = [1.0, 1.0, 1.0, 1.0, np.nan, np.nan], [1.0, 0.0, 1.0, 1.0, np.nan, np.nan]
        pruned, dense = (
            replace(one, by_prompt=one.by_prompt.assign(choice_match=values))
            for one, values in zip(pair, (scores, base), strict=True)
        )
        found = retention(pruned, dense, "choice_match")
        assert found["math"] == pytest.approx(2 / 3)
        assert found["general"] == 1
        assert np.isnan(retention_interval(pruned, dense, "general", metric="choice_match")).all()  # of one prompt
        names = ["all"] * 6
        one, other = (replace(e, by_prompt=e.by_prompt.assign(domain=names, choice_match=1.0)) for e in (pruned, dense))
        low, high = retention_interval(one, other, "all", metric="choice_match")
        assert 0 <= low < 1 < high

    def test_a_metric_that_was_not_asked_for_is_named(self, loaded: LoadedModel, few: PromptSet) -> None:
        dense = evaluate(loaded, few)
        told = evaluate(loaded, few, MASK, reference=dense, responses=True)
        with pytest.raises(EvaluationError, match="The dense evaluation has no 'numeric_match'"):
            retention(told, dense, "numeric_match")
        with pytest.raises(EvaluationError, match="The pruned evaluation has no 'choice_match'"):
            retention_interval(told, dense, "math", metric="choice_match")
