"""Sweep: every number is that of evaluating each mask alone, and most of the work is done once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from oracles import changed_copy, qwen_layers, same_weights, weights_of
from outside import outside_prompts, save_outside_model

from vlm_analysis import (
    Cancelled,
    Edit,
    Evaluation,
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    evaluate,
    load_model,
    sweep,
)
from vlm_analysis.edits.apply import apply_edit, why_not
from vlm_analysis.errors import EvaluationError, MaskError
from vlm_analysis.evaluation.run import sharing
from vlm_analysis.evaluation.run.evaluate import batch_for, evaluation_of
from vlm_analysis.evaluation.run.prepared import prepare
from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
from vlm_analysis.evaluation.run.sweep import open_scores, score_header, sweep_prepared
from vlm_analysis.evaluation.scores import ScoreStore
from vlm_analysis.models.inputs import batches

ROOT = Path(__file__).resolve().parents[2]

KINDS = [
    "chameleon",
    "gemma3",
    "gemma4",
    "glm_ocr",
    "glm5_next",
    "granite4_vision",
    "idefics3",
    "internvl",
    "llava_onevision",
    "minicpmv4_6",
    "mllama",
    "ovis2",
    "qwen2_5_vl",
    "qwen3_5",
    "qwen3_vl",
    "smolvlm",
]


def one_by_one(loaded: LoadedModel, prompts: Any, masks: list[Edit], **how: Any) -> list[Evaluation]:
    dense = evaluate(loaded, prompts, **how)
    return [evaluate(loaded, prompts, mask, reference=dense, **how) for mask in masks]


def assert_equal(found: list[Evaluation], wanted: list[Evaluation]) -> None:
    assert [one.mask for one in found] == [one.mask for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        pd.testing.assert_frame_equal(one.by_prompt, other.by_prompt, check_exact=True)


def leave_one_out(loaded: LoadedModel) -> list[Edit]:
    return can_go(loaded, [PruneMask(loaded.n_layers, (layer,)) for layer in range(loaded.n_layers)])


def can_go(loaded: LoadedModel, masks: list[Edit]) -> list[Edit]:
    return [mask for mask in masks if not why_not(loaded.model, mask)]


class TestEqualToTheLastBit:
    @pytest.mark.slow  # `make test` has it with every other layer
    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_each_layer_left_out_on_the_bundled_model(
        self, loaded: LoadedModel, few: PromptSet, batch_size: int
    ) -> None:
        masks, some = leave_one_out(loaded), few[::2]
        found = list(sweep(loaded, some, masks, batch_size=batch_size))
        assert_equal(found, one_by_one(loaded, some, masks, batch_size=batch_size))

    def test_every_other_layer_left_out_on_the_bundled_model(self, loaded: LoadedModel, few: PromptSet) -> None:
        masks, some = leave_one_out(loaded)[::2], few[2:4]
        assert_equal(list(sweep(loaded, some, masks, batch_size=2)), one_by_one(loaded, some, masks, batch_size=2))

    @settings(max_examples=settings.default.max_examples // 5)  # each takes a second
    @given(st.lists(st.sets(st.integers(0, 7), max_size=6), min_size=1, max_size=8))
    def test_any_masks_in_any_order_equal_ones_too(
        self, small: LoadedModel, few: PromptSet, dropped: list[set[int]]
    ) -> None:
        masks = [PruneMask(8, tuple(layers)) for layers in dropped]
        found = list(sweep(small, few[2:4], masks, batch_size=1))
        assert_equal(found, one_by_one(small, few[2:4], masks, batch_size=1))

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of numpy, on transformers' ways
    @pytest.mark.slow  # tests/conformance has some of them without their files
    @pytest.mark.parametrize("kind", KINDS)
    def test_on_other_architectures(self, kind: str, tmp_path: Path) -> None:
        loaded = load_model(save_outside_model(kind, tmp_path / kind))
        free = [mask.dropped[0] for mask in leave_one_out(loaded)]
        rng = np.random.default_rng(0)
        drawn = [tuple(rng.choice(free[1:], 2, replace=False).tolist()) for _ in range(4)] if len(free) > 3 else []
        masks = leave_one_out(loaded) + can_go(loaded, [PruneMask(loaded.n_layers, layers) for layers in drawn])
        prompts = outside_prompts()[:2]
        assert_equal(
            list(sweep(loaded, prompts, masks, batch_size=1)), one_by_one(loaded, prompts, masks, batch_size=1)
        )

    @pytest.mark.parametrize("max_bytes", [0, 20_000])
    def test_with_little_memory_more_is_computed_again(
        self, small: LoadedModel, few: PromptSet, max_bytes: int
    ) -> None:
        masks = leave_one_out(small)[::2]
        found = list(sweep(small, few[:2], masks, batch_size=1, max_bytes=max_bytes))
        assert_equal(found, one_by_one(small, few[:2], masks, batch_size=1))

    def test_prompts_without_answers_are_scored_on_the_dense_response(self, small: LoadedModel, few: PromptSet) -> None:
        bare = PromptSet(Prompt(p.images, p.question, p.domain, p.id) for p in few[:3])
        masks = leave_one_out(small)[4:6]
        assert_equal(list(sweep(small, bare, masks)), one_by_one(small, bare, masks))


class TestWhatIsShared:
    def runner(self, loaded: LoadedModel, few: PromptSet, masks: list[Edit], max_bytes: int = 1 << 30) -> SharedRunner:
        runner = SharedRunner(loaded, max_bytes)
        list(runner.run([prepare(loaded, few[:1]).encoded[0]], ordered([PruneMask(16), *masks])))
        return runner

    def test_leaving_out_each_layer_runs_half_of_the_layers(self, loaded: LoadedModel, few: PromptSet) -> None:
        runner = self.runner(loaded, few, leave_one_out(loaded))
        assert runner.layers_counted == 16 + 16 * 15
        assert runner.layers_run == 16 + sum(15 - layer for layer in range(16))  # what lies behind the layer left out

    def test_no_layer_is_run_twice_on_the_same_start(self, loaded: LoadedModel, few: PromptSet) -> None:
        rng = np.random.default_rng(3)
        masks = [PruneMask(16, tuple(rng.choice(range(1, 15), size, replace=False))) for size in (1, 2, 3, 4, 5) * 6]
        runner = self.runner(loaded, few, masks)
        starts = {mask.kept[:length] for mask in [PruneMask(16), *masks] for length in range(1, len(mask.kept) + 1)}
        assert runner.layers_run == len(starts)  # the nodes of the trie of kept layers

    def test_without_memory_every_mask_runs_alone(self, loaded: LoadedModel, few: PromptSet) -> None:
        runner = self.runner(loaded, few, leave_one_out(loaded), max_bytes=0)
        assert runner.layers_run == runner.layers_counted

    def test_the_vision_tower_runs_once_a_batch(self, small: LoadedModel, few: PromptSet) -> None:
        copy, calls = changed_copy(small), list[int]()
        copy.model.model.visual.register_forward_hook(lambda *_: calls.append(1))
        list(sweep(copy, few, leave_one_out(small)[:5], batch_size=3))
        trial = (
            1 + 1 + 1 + 3
        )  # whether it takes the prompt; layers alone; three edits that share; each of them by itself
        assert len(calls) == 2 + trial
        list(sweep(copy, few, leave_one_out(small)[:5], batch_size=3))
        assert len(calls) == 2 + trial + 2  # the trial is done once a model

    def test_positions_are_made_once_a_batch(self, small: LoadedModel, few: PromptSet) -> None:
        copy, calls = changed_copy(small), list[int]()
        inner = copy.model.model
        make = inner.get_rope_index
        vars(inner)["get_rope_index"] = lambda *given, **named: calls.append(1) or make(*given, **named)
        runner = SharedRunner(copy)
        work, plan = prepare(copy, few), ordered(leave_one_out(small)[:5])
        list(runner.run([work.encoded[0]], plan))
        calls.clear()
        list(runner.run([work.encoded[0], work.encoded[1]], plan))
        assert len(calls) == 1

    def test_a_runner_that_is_used_again_gives_the_scores_of_a_new_one(
        self, small: LoadedModel, few: PromptSet
    ) -> None:
        masks, runner = leave_one_out(small)[:3], SharedRunner(small)
        for prompts in (few[:2], few[2:4]):
            work = prepare(small, prompts)
            store = open_scores(work, 2)
            sweep_prepared(work, masks, None, store=store, batch_size=2, runner=runner)
            found = [evaluation_of(work, mask, store.of(mask.key)) for mask in masks]
            assert_equal(found, list(sweep(small, prompts, masks, batch_size=2)))

    @pytest.mark.parametrize(("room", "made_again"), [(60_000, 0), (None, 5)], ids=["for all", "for one"])
    def test_views_are_made_once_while_there_is_room(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch, room: int | None, made_again: int
    ) -> None:
        monkeypatch.setattr(sharing, "MOST_MODULES", room or len(list(small.model.modules())))
        made: list[str] = []
        monkeypatch.setattr(sharing, "apply_edit", lambda *a, **k: made.append(a[1].key) or apply_edit(*a, **k))
        runner, items, plan = SharedRunner(small), prepare(small, few[:2]).encoded, ordered(leave_one_out(small)[:6])
        first = [scores for _, scores in runner.run([items[0]], plan)]
        made.clear()
        again = [scores for _, scores in runner.run([items[0]], plan)]
        assert len(made) == made_again
        assert all(np.array_equal(one[0], other[0]) for one, other in zip(first, again, strict=True))

    @pytest.mark.parametrize(
        "dropped",
        [
            pytest.param([(5,), (7,), (12,)], id="from the start"),
            pytest.param([(9,), (0, 5), (0, 7)], id="later", marks=pytest.mark.slow),
            pytest.param([(layer,) for layer in range(0, 16, 4)], id="every fourth layer", marks=pytest.mark.slow),
            pytest.param([(1,), (14,)], id="around it"),
        ],
    )
    def test_a_model_that_hands_on_state_beside_the_stream_shares_no_layers(
        self, loaded: LoadedModel, few: PromptSet, dropped: list[tuple[int, ...]]
    ) -> None:
        odd = lending(loaded)
        masks = [PruneMask(16, layers) for layers in dropped]
        dense = evaluate(odd, few[:2], batch_size=1)
        wanted = [evaluate(odd, few[:2], mask, reference=dense, batch_size=1) for mask in masks]
        assert_equal(list(sweep(odd, few[:2], masks, reference=dense, batch_size=1)), wanted)
        runner = SharedRunner(odd)
        list(runner.run([prepare(odd, few[:1]).encoded[0]], ordered(masks)))
        assert runner._limit == 0

    def test_what_a_layer_left_lying_for_another_is_not_taken_for_its_own(
        self, loaded: LoadedModel, few: PromptSet
    ) -> None:
        odd = lending(loaded, hoards=True)
        masks = [PruneMask(16, (layer,)) for layer in (2, 4, 8, 12)]
        wanted = one_by_one(odd, few[:1], masks, batch_size=1)
        assert_equal(list(sweep(odd, few[:1], masks, batch_size=1)), wanted)


def lending(loaded: LoadedModel, *, hoards: bool = False) -> LoadedModel:
    """Return a copy in which layer 3 hands layer 9 a number beside the stream, anew in each pass; it may lie there afterwards."""
    odd, memory = changed_copy(loaded), list[torch.Tensor]()
    layers = qwen_layers(odd.model)

    class Lender(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            memory[:] = [x.mean()]
            return self.inner(x)

    class Borrower(Lender):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            lent = memory[0] if memory else torch.tensor(2.0)
            if not hoards:
                memory.clear()
            return self.inner(x) * (1 + lent)

    layers[3].mlp, layers[9].mlp = Lender(layers[3].mlp), Borrower(layers[9].mlp)
    return odd


class TestWhatIsKept:
    def test_a_sweep_that_broke_off_goes_on_where_it_stopped(
        self, small: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        masks, wanted = leave_one_out(small)[3:8], one_by_one(small, few, leave_one_out(small)[3:8], batch_size=2)
        ran: list[tuple[int, int]] = []

        def stop_at(last: int) -> Any:
            def report(done: int, total: int, message: str) -> None:
                if message.startswith("part"):
                    ran.append((done, total))
                    if done == last:
                        raise Cancelled

            return report

        for last in (0, 3, 4):
            with pytest.raises(Cancelled):
                list(sweep(small, few, masks, batch_size=2, folder=tmp_path, on_progress=stop_at(last)))
        whole = 5 * len(list(batches(prepare(small, few).encoded, 2)))
        assert ran[-1] == (4, whole - 3)
        ran.clear()
        assert_equal(list(sweep(small, few, masks, batch_size=2, folder=tmp_path, on_progress=stop_at(-1))), wanted)
        assert ran[0] == (0, whole - 3 - 4)
        ran.clear()
        assert_equal(list(sweep(small, few, masks, batch_size=2, folder=tmp_path, on_progress=stop_at(-1))), wanted)
        assert not ran

    @pytest.mark.slow  # tests/test_owned.py kills a recording
    def test_a_killed_sweep_loses_no_more_than_the_mask_at_work(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        code = f"""
import os
from pathlib import Path
from vlm_analysis import PruneMask
from vlm_analysis import load_model
from vlm_analysis import open_prompts
from vlm_analysis import sweep
packs = open_prompts("math") + open_prompts("general")
def kill(done, total, message):
    if message.startswith("part") and done == 4:
        os.kill(os.getpid(), 9)
masks = [PruneMask(16, (layer,)) for layer in (3, 4, 5)]
list(sweep(load_model(), packs[:3] + packs[45:48], masks, batch_size=2, folder=Path({str(tmp_path)!r}), on_progress=kill))
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, capture_output=True)
        assert done.returncode == -9
        store = ScoreStore(16, 6, tmp_path, score_header(loaded, few, 2))
        first, second = list(batches(prepare(loaded, few).encoded, 2))[:2]
        assert sum(len(store.of(PruneMask(16, (layer,)).key)) for layer in (3, 4, 5)) == 3 * len(first) + len(second)
        masks = [PruneMask(16, (layer,)) for layer in (3, 4, 5)]
        assert_equal(
            list(sweep(loaded, few, masks, batch_size=2, folder=tmp_path)),
            one_by_one(loaded, few, masks, batch_size=2),
        )

    def test_other_masks_run_only_what_is_new(self, small: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
        first, second = leave_one_out(small)[3:6], leave_one_out(small)[4:8]
        list(sweep(small, few, first, folder=tmp_path))
        totals: list[int] = []
        found = list(
            sweep(small, few, second, folder=tmp_path, on_progress=lambda done, total, message: totals.append(total))
        )
        assert_equal(found, one_by_one(small, few, second))
        assert totals[-1] == 2

    def test_scores_of_other_prompts_are_refused(self, small: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
        list(sweep(small, few, leave_one_out(small)[3:4], folder=tmp_path))
        with pytest.raises(EvaluationError, match="another model, other prompts"):
            list(sweep(small, few[:5], leave_one_out(small)[3:4], folder=tmp_path))


class TestManners:
    def test_evaluations_come_in_the_order_of_the_masks_and_partial_ones_before(
        self, small: LoadedModel, few: PromptSet
    ) -> None:
        masks = [PruneMask(8, layers) for layers in ((5,), (3, 4), (5,), ())]
        seen: list[tuple[int, int]] = []
        found = list(
            sweep(small, few, masks, batch_size=2, on_partial=lambda n, one: seen.append((n, len(one.by_prompt))))
        )
        assert [one.mask.dropped for one in found] == [(5,), (3, 4), (5,), ()]
        assert found[3].by_domain["kl_to_dense"].tolist() == [0, 0]
        assert seen[:4] == [(0, 2), (1, 2), (2, 2), (3, 2)]
        assert seen[-1] == (3, 6)

    def test_a_reference_spares_the_dense_model_and_gives_the_same(self, small: LoadedModel, few: PromptSet) -> None:
        dense = evaluate(small, few)
        masks = leave_one_out(small)[5:8]
        with_reference = list(sweep(small, few, masks, reference=dense))
        assert_equal(with_reference, list(sweep(small, few, masks)))

    def test_the_dense_mask_has_no_divergence_whatever_batches_its_reference_had(
        self, small: LoadedModel, few: PromptSet
    ) -> None:
        (found,) = sweep(small, few, [PruneMask(8)], reference=evaluate(small, few, batch_size=6), batch_size=1)
        assert found.by_prompt["kl_to_dense"].tolist() == [0] * 6

    def test_a_mask_of_another_model_a_stranger_s_reference_and_no_masks(
        self, small: LoadedModel, few: PromptSet
    ) -> None:
        with pytest.raises(MaskError):
            list(sweep(small, few, [PruneMask(12, (3,))]))
        with pytest.raises(EvaluationError):
            list(sweep(small, few, [PruneMask(8, (3,))], reference=evaluate(small, few[:2])))
        assert list(sweep(small, few, [])) == []

    def test_cancelling_leaves_the_dense_model_as_it_was(self, small: LoadedModel, few: PromptSet) -> None:
        before = weights_of(small.model)

        def stop(done: int, total: int, message: str) -> None:
            if message.startswith("part") and done == 4:
                raise Cancelled

        with pytest.raises(Cancelled):
            list(sweep(small, few, leave_one_out(small), on_progress=stop))
        assert same_weights(small.model, before)
        assert "forward" not in vars(small.model.model.language_model.layers[3])


class TestBatches:
    def test_evaluating_alone_and_sweeping_give_the_same_bits_by_default(
        self, small: LoadedModel, packs: PromptSet
    ) -> None:
        some, mask = packs[::5], PruneMask(8, (3, 5))
        (swept,) = sweep(small, some, [mask])
        assert swept.by_prompt.equals(evaluate(small, some, mask).by_prompt)

    def test_small_models_take_32_prompts_and_large_ones_as_many_as_their_states_fit(self, loaded: LoadedModel) -> None:
        assert batch_for(loaded) == 32
        assert loaded.max_vision_tokens == 256
        large = replace(loaded, max_vision_tokens=1 << 14)
        one = 16 * ((1 << 14) + 128) * loaded.model.config.get_text_config().hidden_size * 4
        assert batch_for(large) == (1 << 30) // one < 32
        assert batch_for(replace(loaded, max_vision_tokens=1 << 30)) == 1
