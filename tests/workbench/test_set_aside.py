"""A prompt that the processor or the model refuses is set aside by name with its reason, and all others go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from outside import noise, save_outside_model
from PIL import Image
from typer.testing import CliRunner

from vlm_analysis import (
    Bench,
    Cancelled,
    Evaluation,
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    cli,
    compare_masks,
    evaluate,
    load_model,
    many_masks,
    open_evaluation,
    open_recording,
    read_damage,
    record,
    retention,
    save_evaluation,
    save_recording,
    stream_both,
    sweep,
)
from vlm_analysis.errors import EvaluationError, ModelError, PromptError
from vlm_analysis.evaluation.evaluation import on_both
from vlm_analysis.evaluation.run.latency import measure_latency
from vlm_analysis.evaluation.run.timing import measure_cost
from vlm_analysis.models import refused
from vlm_analysis.models.inputs import encode
from vlm_analysis.models.refused import naming
from vlm_analysis.workbench.shelf import keep_cost
from vlm_analysis.workbench.workspace import Workspace

MASK = PruneMask(16, (5, 9))
LONG = 100  # tokens; the bundled prompts have fewer than 40
REFUSED = ("flat", "asks", "answers", "gone", "endless")


@pytest.fixture
def mixed(few: PromptSet, tmp_path: Path) -> PromptSet:
    """Six prompts that run, and among them five that do not: too flat, a special token twice, a picture deleted since, too long."""
    picture = tmp_path / "gone.png"
    few[0].load_images()[0].save(picture)
    image = few[0].load_images()[0]
    odd = [
        Prompt((Image.new("RGB", (900, 4), "red"),), "how many?", "math", "flat", "1"),
        Prompt((image,), "how <|im_end|> many?", "math", "asks", "1"),
        Prompt((image,), "how many?", "math", "answers", "1 <|im_end|>"),
        Prompt((picture,), "how many?", "math", "gone", "1"),
        Prompt((image,), "how many circles? " * 30, "general", "endless", "1"),
    ]
    prompts = PromptSet([*few[:2], *odd[:3], *few[2:5], *odd[3:], *few[5:]])
    _ = prompts.fingerprint
    picture.unlink()
    return prompts


@contextmanager
def short_model(loaded: LoadedModel) -> Iterator[None]:
    """Let the model run out of positions, as one with a table of them does; views of it share the embedding."""

    def check(module: Any, args: Any) -> None:
        if args[0].shape[1] > LONG:
            raise IndexError("index out of range in self")

    hook = loaded.model.get_input_embeddings().register_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture
def short(loaded: LoadedModel) -> Iterator[LoadedModel]:
    with short_model(loaded):
        yield loaded


def numbers(evaluation: Evaluation) -> pd.DataFrame:
    return evaluation.by_prompt[["id", "exact_match", "answer_nll", "token_agreement", "kl_to_dense"]]


class TestRecording:
    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_the_others_are_recorded(
        self, short: LoadedModel, mixed: PromptSet, few: PromptSet, tmp_path: Path, batch_size: int
    ) -> None:
        recording = record(short, mixed, batch_size=batch_size)
        assert set(recording.set_aside) == set(REFUSED)
        assert recording.prompt_ids == tuple(prompt.id for prompt in few)
        assert recording.prompts == mixed.fingerprint
        alone = record(short, few, batch_size=batch_size)
        np.testing.assert_allclose(recording.rows["cosine"], alone.rows["cosine"], atol=1e-5)
        for name, words in zip(REFUSED, ("900", "special token", "its answer", "gone.png", "IndexError"), strict=True):
            assert words in recording.set_aside[name]
            assert repr(name) in recording.set_aside[name]
        opened = open_recording(save_recording(recording, tmp_path / "made.npz"))
        assert opened.set_aside == recording.set_aside

    def test_an_interrupted_one_goes_on_past_them(self, short: LoadedModel, mixed: PromptSet, tmp_path: Path) -> None:
        def stop(done: int, total: int, message: str) -> None:
            if done >= 9:
                raise Cancelled

        with pytest.raises(Cancelled):
            record(short, mixed, folder=tmp_path / "rows", on_progress=stop)
        again = record(short, mixed, folder=tmp_path / "rows")
        assert set(again.set_aside) == set(REFUSED)
        assert again.n_prompts == 6

    def test_one_whose_prompts_are_all_refused_says_why(self, loaded: LoadedModel, mixed: PromptSet) -> None:
        refused = PromptSet([prompt for prompt in mixed if prompt.id in REFUSED[:4]])
        for work in (record, evaluate):
            with pytest.raises(PromptError, match=r"None of the 4 prompts .* 'flat' .*'asks'"):
                work(loaded, refused)
        with pytest.raises(PromptError, match="'flat' cannot be prepared"):
            record(loaded, refused[:1])


class TestScores:
    def test_an_evaluation_has_the_others_scores(
        self, short: LoadedModel, mixed: PromptSet, few: PromptSet, tmp_path: Path
    ) -> None:
        dense = evaluate(short, mixed, responses=True)
        pruned = evaluate(short, mixed, MASK, reference=dense)
        for one in (dense, pruned):
            assert set(one.set_aside) == set(REFUSED)
            assert list(one.by_prompt["id"]) == [prompt.id for prompt in few]
            assert one.prompts == mixed.fingerprint
            assert one.by_domain["n"].sum() == 6
        alone = evaluate(short, few, MASK)
        pd.testing.assert_frame_equal(numbers(pruned), numbers(alone), atol=1e-5, rtol=0)
        opened = open_evaluation(save_evaluation(pruned, tmp_path / "made.json"))
        assert opened.set_aside == pruned.set_aside

    @pytest.mark.parametrize("with_reference", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_a_sweep_gives_what_evaluate_gives(
        self, short: LoadedModel, mixed: PromptSet, tmp_path: Path, with_reference: bool
    ) -> None:
        dense = evaluate(short, mixed) if with_reference else None
        edits = [PruneMask(16), MASK]
        wanted = [numbers(evaluate(short, mixed, edit)) for edit in edits]
        for _ in range(2):  # the second one finds the scores of the first
            found = sweep(short, mixed, edits, reference=dense, folder=tmp_path / "s")
            for one, other in zip(found, wanted, strict=True):
                assert set(one.set_aside) == set(REFUSED)
                pd.testing.assert_frame_equal(numbers(one), other)

    def test_a_batch_that_is_refused_keeps_the_batches_of_the_others(
        self, loaded: LoadedModel, packs: PromptSet
    ) -> None:
        some = PromptSet([*packs[:9], Prompt(packs[0].images, "how many circles? " * 30, "math", "endless", "1")])
        whole = evaluate(loaded, some, MASK, batch_size=4)
        with short_model(loaded):
            found = evaluate(loaded, some, MASK, batch_size=4)
        assert list(found.set_aside) == ["endless"]
        kept = numbers(whole)[whole.by_prompt["id"] != "endless"].reset_index(drop=True)
        same = (numbers(found) == kept).all(axis=1)
        assert same.sum() >= 8  # of the batch that lost one prompt, the last bits may differ

    def test_an_edit_that_fails_where_the_dense_model_runs_is_an_error_of_the_edit(
        self, loaded: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        layer = type(loaded.model.get_decoder().layers[0])
        ran = layer.forward

        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.self_attn.config.num_hidden_layers < 16:
                raise ValueError("no such cache")
            return ran(self, *args, **kwargs)

        monkeypatch.setattr(layer, "forward", forward)
        for work in (
            lambda: evaluate(loaded, few, MASK),
            lambda: list(sweep(loaded, few, [MASK, PruneMask(16, (3,))])),
        ):
            with pytest.raises(EvaluationError, match=r"drops layers .* ValueError: no such cache"):
                work()

    def test_a_choice_that_cannot_be_scored_sets_its_prompt_aside(self, loaded: LoadedModel, few: PromptSet) -> None:
        images = few[0].images
        odd = Prompt(images, "which?", "math", "odd", "1", choices=("1", "<|im_end|>"))
        plain = Prompt(images, "which?", "math", "plain", choices=("1", "2"))
        found = evaluate(loaded, [odd, plain], MASK)
        assert list(found.set_aside) == ["odd"]
        assert list(found.by_prompt["id"]) == ["plain"]
        assert found.by_prompt["choice"].notna().all()

    def test_a_picture_deleted_after_the_dense_evaluation(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        few[1].load_images()[0].save(tmp_path / "late.png")
        late = Prompt((tmp_path / "late.png",), "how many?", "math", "late", "1")
        prompts = PromptSet([few[0], late, few[2]])
        dense = evaluate(loaded, prompts)
        (tmp_path / "late.png").unlink()
        pruned = evaluate(loaded, prompts, MASK, reference=dense)
        assert list(pruned.set_aside) == ["late"]
        both = on_both(pruned, dense)
        assert [list(one.by_prompt["id"]) for one in both] == [[few[0].id, few[2].id]] * 2
        assert list(both[1].set_aside) == ["late"]
        assert retention(pruned, dense).index.tolist() == ["math"]

    def test_damage_counts_the_prompts_that_every_evaluation_has(self, loaded: LoadedModel, mixed: PromptSet) -> None:
        found = list(sweep(loaded, mixed[:7], [PruneMask(16), PruneMask(16, (3,)), PruneMask(16, (4,))]))
        damage = read_damage(found, loaded.info)
        assert len(damage.ids) == 4
        assert set(damage.set_aside) == {"flat", "asks", "answers"}

    def test_a_comparison_leaves_them_out_and_names_them(self, short: LoadedModel, mixed: PromptSet) -> None:
        recording = record(short, mixed)
        ways, _ = many_masks(recording, [2], criteria=["block-influence"], strategies=["first-k"], locks=short.locks)
        comparison = compare_masks(short, mixed, ways, recording=recording)
        assert set(comparison.dense.set_aside) == set(REFUSED)
        assert comparison.scores["kl_to_dense"].shape[1] == comparison.n_shared == 6
        one = comparison.evaluation(0)
        pd.testing.assert_frame_equal(numbers(one), numbers(evaluate(short, mixed, comparison.masks[0])))

    def test_costs_are_timed_on_the_others(self, loaded: LoadedModel, mixed: PromptSet) -> None:
        cost = measure_cost(loaded, mixed[:4], MASK, rounds=1, new_tokens=2)
        assert cost.n_prompts == 2
        assert set(cost.set_aside) == {"flat", "asks"}

    def test_costs_leave_out_prompts_without_room_for_the_new_tokens(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lengths = [encode(small, prompt).n_tokens for prompt in few]
        monkeypatch.setitem(vars(small), "context_length", max(lengths) + 1)
        cost = measure_cost(small, few, PruneMask(8, (3, 5)), rounds=1, new_tokens=2)
        assert (
            set(cost.set_aside)
            == {prompt.id for prompt, n in zip(few, lengths, strict=True) if n == max(lengths)}
            < {prompt.id for prompt in few}
        )
        words = f"expected room for 2 new tokens behind its {max(lengths)}, got a context of {max(lengths) + 1}"
        assert all(words in reason for reason in cost.set_aside.values())

    def test_layers_are_timed_on_the_others_and_the_refused_named(self, loaded: LoadedModel, mixed: PromptSet) -> None:
        latency = measure_latency(loaded, mixed[:4], rounds=1)
        assert latency.n_prompts == 2
        assert set(latency.set_aside) == {"flat", "asks"}

    def test_asking_one_says_why_it_cannot_be_asked(self, short: LoadedModel, mixed: PromptSet) -> None:
        for name in REFUSED:
            prompt = next(one for one in mixed if one.id == name)
            if name != "answers":
                with pytest.raises(PromptError, match=f"'{name}'"):
                    list(stream_both(short, prompt, MASK))


class TestPicturesGoneBeforeTheirFirstHash:
    @pytest.fixture
    def gone(self, few: PromptSet, tmp_path: Path) -> PromptSet:
        return PromptSet([few[0], Prompt((tmp_path / "gone.png",), "how many?", "math", "gone", "1"), few[3]])

    def test_they_are_set_aside_by_name_in_recordings_evaluations_and_sweeps(
        self, loaded: LoadedModel, few: PromptSet, gone: PromptSet
    ) -> None:
        left = PromptSet([few[0], few[3]])
        recording = record(loaded, gone)
        dense = evaluate(loaded, gone)
        (swept,) = sweep(loaded, gone, [MASK], reference=dense)
        for value in (recording, dense, swept):
            assert list(value.set_aside) == ["gone"]
            assert value.set_aside["gone"].startswith("Prompt 'gone' cannot be asked: ")
            assert "gone.png' could not be read" in value.set_aside["gone"]
            assert value.prompts == gone.fingerprint != left.fingerprint
        assert recording.prompt_ids == (few[0].id, few[3].id)
        pd.testing.assert_frame_equal(numbers(dense), numbers(evaluate(loaded, left)))

    def test_a_set_of_no_others_says_so(self, loaded: LoadedModel, gone: PromptSet) -> None:
        with pytest.raises(PromptError, match=r"^Prompt 'gone' cannot be asked: "):
            record(loaded, gone[1:2])


class TestPlaces:
    def test_the_bench_the_command_and_their_json_name_them(self, small: LoadedModel, few: PromptSet) -> None:
        odd = Prompt((Image.new("RGB", (900, 4), "red"),), "how many?", "math", "flat", "1")
        prompts, shelf, mask = PromptSet([*few[1:4], odd]), Workspace(), PruneMask(8, (3, 5))
        bench = Bench(small, shelf)
        made = [
            bench.record(prompts, "mine"),
            bench.search(prompts, "greedy", 1),
            bench.evaluate(prompts, mask, "scored"),
            bench.measure_damage(prompts),
            bench.compare(prompts, criteria=["block-influence"], strategies=["first-k"], most=1),
            keep_cost(shelf, measure_cost(small, prompts, mask, rounds=1, new_tokens=2), "timed", prompts.fingerprint),
        ]
        for item in made:
            shown = CliRunner().invoke(cli.strata, ["show", item.id])
            assert shown.exit_code == 0, shown.output
            assert "set aside:" in shown.output
            assert "Prompt 'flat' cannot be prepared" in shown.output
            told = json.loads(CliRunner().invoke(cli.strata, ["show", item.id, "--json"]).output)
            told = told["edit"]["provenance"] if item.kind == "masks" else told
            assert list(told["set_aside"]) == ["flat"]
        assert bench.recording(prompts).n_prompts == 3

    def test_learned_positions_bound_the_prompt_by_name_and_number(self, tmp_path: Path) -> None:
        odd = load_model(save_outside_model("blip-2", tmp_path / "blip"))
        most = odd.context_length
        assert most == odd.model.config.text_config.max_position_embeddings
        fits = Prompt((noise(1),), "w1 w2", "a", "fits", "w3")
        long = Prompt((noise(1),), " ".join(["w5"] * most), "a", "long", "w3")
        recording = record(odd, [fits, long])
        assert recording.prompt_ids == ("fits",)
        assert f"expected at most {most} tokens" in recording.set_aside["long"]
        assert list(evaluate(odd, [fits, long]).set_aside) == ["long"]
        nearly = Prompt((noise(1),), " ".join(["w5"] * (most - 12)), "a", "nearly")
        written = evaluate(odd, [fits, nearly], responses=True)  # its own answer ends where the positions do
        assert not written.set_aside
        assert len(written.by_prompt["answer_ids"][1]) < 64


def test_what_is_no_prompts_fault_is_no_reason_to_set_it_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="not enough memory"), naming(["a"], "m"):
        raise RuntimeError("DefaultCPUAllocator: not enough memory")
    with pytest.raises(Cancelled), naming(["a"], "m"):
        raise Cancelled
    words = r"Prompts 'a', 'b', 'c' and 1 more cannot be run by m: .*RuntimeError: shape"
    with pytest.raises(PromptError, match=words), naming(["a", "b", "c", "d"], "m"):
        raise RuntimeError("shape")
    monkeypatch.setattr(refused, "_BROKEN_DEVICE", (KeyError,))
    with pytest.raises(ModelError, match="device failed"), naming(["a"], "m"):
        raise KeyError("device-side assert")
