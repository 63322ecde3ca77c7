"""Training: a stop and a resume change no bit, nothing held out is shown, and a killed write leaves the last checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from oracles import same_weights, weights_of
from safetensors.torch import load_file

from vlm_analysis.assets import asset
from vlm_analysis.pocket import tasks, training
from vlm_analysis.pocket.__main__ import main
from vlm_analysis.pocket.pictures import is_reserved_pair
from vlm_analysis.pocket.tasks import content_key, make_example
from vlm_analysis.pocket.training import RECIPES, Recipe, Trainer, answer_loss, rate_at, train_folder, training_pictures

TINY = Recipe(steps=4, pictures=4, questions=2, warmup=2)
LEAST = replace(TINY, pictures=1, questions=1)


class TestResuming:
    @pytest.mark.slow  # `make test` resumes after a write that was killed, below
    @pytest.mark.parametrize(("recipe", "half"), [(LEAST, 1), (TINY, 2)])
    def test_steps_saved_and_resumed_equal_as_many_straight_bit_for_bit(
        self, tmp_path: Path, recipe: Recipe, half: int
    ) -> None:
        straight = Trainer(tmp_path / "straight", recipe)
        losses = [straight.train_step() for _ in range(2 * half)]
        first = Trainer(tmp_path / "broken", recipe)
        broken = [first.train_step() for _ in range(half)]
        first.save()
        second = Trainer(tmp_path / "broken", recipe)
        assert second.resume()
        assert second.step == half
        broken += [second.train_step() for _ in range(half)]
        assert broken == losses
        assert same_weights(second.model, weights_of(straight.model))

    @pytest.mark.slow
    def test_resuming_without_the_optimisers_would_show(self, tmp_path: Path) -> None:
        first = Trainer(tmp_path, LEAST)
        first.train_step()
        first.save()
        second = Trainer(tmp_path, LEAST)
        second.resume()
        forgetful = Trainer(tmp_path, LEAST)
        forgetful.model.load_state_dict(first.model.state_dict())
        forgetful.step = 1
        for trainer in (second, forgetful):
            trainer.train_step()
        assert not same_weights(forgetful.model, weights_of(second.model))

    def test_there_is_nothing_to_resume_in_an_empty_folder(self, tmp_path: Path) -> None:
        trainer = Trainer(tmp_path / "none", TINY)
        before = weights_of(trainer.model)
        assert not trainer.resume()
        assert trainer.step == 0
        assert same_weights(trainer.model, before)

    @pytest.mark.slow
    def test_a_write_that_is_killed_midway_leaves_the_last_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = Trainer(tmp_path, LEAST)
        trainer.train_step()
        trainer.save()
        whole, weights = trainer.checkpoint.read_bytes(), weights_of(trainer.model)
        trainer.step += 1
        next(trainer.model.parameters()).data.zero_()  # as if there had been a second step, which takes seconds

        def killed(tensors: Any, path: Path, metadata: Any) -> NoReturn:
            Path(path).write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(training, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.save()
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["checkpoint.safetensors"]
        assert trainer.checkpoint.read_bytes() == whole
        resumed = Trainer(tmp_path, LEAST)
        assert resumed.resume()
        assert resumed.step == 1
        assert same_weights(resumed.model, weights)

    def test_checkpoints_never_lie_in_the_work_tree(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("STRATA_TRAIN", raising=False)
        assert not train_folder().is_relative_to(Path(__file__).resolve().parents[2])
        monkeypatch.setenv("STRATA_TRAIN", str(tmp_path))
        assert train_folder() == tmp_path


class TestPictures:
    def test_a_step_has_the_same_pictures_each_time_and_others_than_the_next(self) -> None:
        one, same, following = (
            [(image.tobytes(), pairs) for image, pairs in training_pictures(step, TINY)] for step in (3, 3, 4)
        )
        assert one == same
        assert one != following
        assert len(one) == 4
        assert all(1 <= len(pairs) <= 2 for _, pairs in one)

    def test_another_seed_draws_other_pictures(self) -> None:
        first, second = (training_pictures(0, replace(TINY, seed=seed))[0][0].tobytes() for seed in (0, 1))
        assert first != second

    def test_nothing_reserved_is_shown_in_hundreds_of_pictures(self) -> None:
        recipe = replace(TINY, pictures=400, questions=6)
        shown = [(image, question) for image, pairs in training_pictures(0, recipe) for question, _ in pairs]
        assert len(shown) > 400
        assert not {content_key(image, question) for image, question in shown} & tasks.reserved_keys()

    def test_no_training_sum_is_of_a_reserved_pair(self) -> None:
        recipe = replace(TINY, pictures=400, kind_weights=(0, 0, 1))
        answers = [pairs[0][1] for _, pairs in training_pictures(0, recipe)]
        pairs = [tuple(int(number) for number in answer.split(" = ")[0].split(" + ")) for answer in answers]
        assert len(pairs) == 400
        assert not any(is_reserved_pair(*pair) for pair in pairs)

    def test_a_picture_whose_only_questions_are_reserved_is_drawn_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = replace(TINY, pictures=2, kind_weights=(0, 0, 1))
        usual = training_pictures(0, recipe)
        taken = {content_key(usual[0][0], question) for question in ("read the sum.", "solve the sum.")}
        monkeypatch.setattr(tasks, "reserved_keys", lambda: frozenset(taken))
        found = training_pictures(0, recipe)
        assert len(found) == 2
        assert usual[0][0].tobytes() not in {image.tobytes() for image, _ in found}


class TestRate:
    def test_it_warms_up_stays_and_falls_to_zero(self) -> None:
        recipe = Recipe(steps=1000, warmup=100, decay_share=0.4)
        rates = [rate_at(step, recipe) for step in range(1001)]
        assert rates[:3] == [0.01, 0.02, 0.03]
        assert set(rates[99:601]) == {1.0}
        assert rates[800] == pytest.approx(0.5)
        assert rates[1000] == 0
        assert all(0 < rate <= 1 for rate in rates[:1000])
        assert rates[600:] == sorted(rates[600:], reverse=True)

    def test_with_a_limit_of_time_it_falls_to_zero_by_the_computing(self) -> None:
        recipe = Recipe(steps=1000, warmup=100, decay_share=0.5, minutes=10)
        rates = [rate_at(200, recipe, seconds) for seconds in (0, 300, 450, 600, 700)]
        assert rates == pytest.approx([1, 1, 0.5, 0, 0])
        assert rate_at(900, recipe, 0) == pytest.approx(0.2)  # the steps end first


class TestStart:
    def test_the_second_model_starts_from_the_weights_of_the_first(self, tmp_path: Path) -> None:
        trainer = Trainer(tmp_path, replace(RECIPES["pocket-vl-steps"], pictures=1))
        weights, first = trainer.model.state_dict(), load_file(asset("pocket-vl", "model.safetensors"))
        assert set(weights) - set(first) == {"lm_head.weight"}  # tied
        assert all(torch.equal(weights[name], value) for name, value in first.items())
        assert not any(optimiser.state for optimiser in trainer.optimisers.values())

    def test_its_pictures_have_questions_in_steps_beside_the_old_ones(self) -> None:
        pictures = training_pictures(0, replace(RECIPES["pocket-vl-steps"], pictures=200))
        questions = [[question for question, _ in pairs] for _, pairs in pictures]
        in_steps = [["step by step." in question for question in asked] for asked in questions]
        assert 0.65 < sum(any(marks[:1]) for marks in in_steps) / 200 < 0.85
        firsts = {question.split()[-4] for (question, *_), marks in zip(questions, in_steps, strict=True) if marks[0]}
        assert firsts >= {"there?", "bars", "bar?", "bar", "sum"}
        assert sum(not all(marks) for marks in in_steps) > 150
        assert not {content_key(i, q) for i, pairs in pictures for q, _ in pairs} & tasks.reserved_keys()

    def test_a_run_is_over_after_its_steps_or_its_minutes(self, tmp_path: Path) -> None:
        trainer = Trainer(tmp_path, replace(LEAST, steps=3, minutes=2))
        over = []
        for trainer.step, trainer.seconds in ((2, 119.0), (3, 0.0), (2, 120.0)):
            over.append(trainer.is_over)
        assert over == [False, True, True]


class TestLoss:
    def test_a_token_weighs_one_over_the_root_of_its_answers_length(self, tmp_path: Path) -> None:
        packer = Trainer(tmp_path, TINY).packer
        example = make_example("bar-steps", 1)
        batch = packer.pack([(example.image, [(example.question, example.answer), ("which bar is tallest?", "red")])])
        logits = torch.randn(len(batch.targets), 93, generator=torch.Generator().manual_seed(0))
        losses = -logits.double().log_softmax(-1)[torch.arange(len(batch.targets)), batch.targets]
        lengths = [int((batch.answer == number).sum()) for number in batch.answer.tolist()]
        weights = torch.tensor([length**-0.5 for length in lengths], dtype=torch.float64)
        assert answer_loss(logits, batch).item() == pytest.approx(
            float((losses * weights).sum() / weights.sum()), rel=1e-5
        )


class TestOptions:
    def test_a_pocket_without_deepstack_lacks_its_parts_and_nothing_else(self, tmp_path: Path) -> None:
        names = {
            deepstack: {
                name for name, _ in Trainer(tmp_path, replace(LEAST, deepstack=deepstack)).model.named_parameters()
            }
            for deepstack in (True, False)
        }
        assert names[False] < names[True]
        assert all("deepstack" in name for name in names[True] - names[False])

    @pytest.mark.parametrize(
        ("options", "recipe"),
        [
            ([], Recipe()),
            (["--model", "pocket-vl-steps"], RECIPES["pocket-vl-steps"]),
            (["--minutes", "3"], Recipe(minutes=3)),
            (
                ["--steps", "9", "--pictures", "2", "--no-deepstack", "--float32"],
                Recipe(steps=9, pictures=2, deepstack=False, bfloat16=False),
            ),
        ],
    )
    def test_the_command_takes_what_a_shorter_training_needs(
        self, monkeypatch: pytest.MonkeyPatch, options: list[str], recipe: Recipe
    ) -> None:
        asked: list[Recipe] = []
        monkeypatch.setattr(training, "train", lambda assets, *, recipe: asked.append(recipe))
        monkeypatch.setattr("sys.argv", ["pocket", "train", *options])
        main()
        assert asked == [recipe]
