"""Probing answers, on values: the ridge probe against a reference, folds, what is refused, and what is told apart."""

from __future__ import annotations

import numpy as np
import pytest
from probed import held_out_again

from vlm_analysis.recording.answerprobe import N_FOLDS, folds_of, held_out, none_to_probe, parts_of, probed

ANSWERS = np.arange(60) % 3


def drawn(n: int, width: int, signal: float, seed: int = 0) -> np.ndarray:
    """Return states of which the first three numbers hold the answer, with noise."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n, width)) * rng.uniform(0.1, 30, width) + rng.normal(size=width)
    states[:, :3] += signal * np.eye(3)[ANSWERS[:n]] * states.std(axis=0)[:3]
    return states


class TestProbe:
    @pytest.mark.parametrize("width", [5, 80])
    def test_it_is_the_ridge_regression_of_a_reference_on_both_sides_of_the_number_of_prompts(self, width: int) -> None:
        states, folds = drawn(60, width, 2.0), folds_of([str(row) for row in range(60)], ANSWERS)
        right, losses = held_out(states, ANSWERS, folds)
        wanted_right, wanted_losses = held_out_again(states, ANSWERS, folds)
        np.testing.assert_array_equal(right, wanted_right)
        np.testing.assert_allclose(losses, wanted_losses, rtol=1e-8)

    def test_answers_that_the_states_hold_are_named_and_others_are_guessed(self) -> None:
        folds = folds_of([str(row) for row in range(60)], ANSWERS)
        right, losses = held_out(drawn(60, 6, 20.0), ANSWERS, folds)
        assert right.mean() == 1
        assert losses.mean() < 0.1
        noise_right, noise_losses = held_out(drawn(60, 6, 0.0), ANSWERS, folds)
        assert noise_right.mean() < 0.6
        assert noise_losses.mean() > 0.9

    def test_an_answer_is_not_learnt_from_the_prompt_that_is_asked(self) -> None:
        """A state that names its prompt tells nothing of a prompt that is held out."""
        right, _ = held_out(np.eye(60), ANSWERS, folds_of([str(row) for row in range(60)], ANSWERS))
        assert right.mean() < 0.6

    def test_scale_and_place_of_the_states_change_nothing(self) -> None:
        states, folds = drawn(60, 5, 1.0), folds_of([str(row) for row in range(60)], ANSWERS)
        other = states * np.array([1e-3, 1.0, 7.0, 1e4, 2.0]) + 5
        np.testing.assert_allclose(held_out(states, ANSWERS, folds)[1], held_out(other, ANSWERS, folds)[1], rtol=1e-6)

    def test_a_number_that_never_varies_counts_for_nothing(self) -> None:
        states, folds = drawn(60, 4, 1.0), folds_of([str(row) for row in range(60)], ANSWERS)
        states[:, 3] = 0.1
        assert np.isfinite(held_out(states, ANSWERS, folds)[1]).all()

    def test_states_that_are_not_finite_give_nan(self) -> None:
        states = drawn(60, 4, 1.0)
        states[7, 2] = np.inf
        assert np.isnan(held_out(states, ANSWERS, folds_of([str(row) for row in range(60)], ANSWERS))).all()

    def test_a_stream_that_enters_a_layer_as_it_left_the_last_is_probed_once_and_another_anew(self) -> None:
        parts, _ = parts_of([("math", "")] * 60, [str(one) for one in ANSWERS], [str(row) for row in range(60)])
        states = np.stack(
            [np.stack([drawn(60, 5, 2.0, seed) for seed in pair], axis=1) for pair in ((0, 1), (1, 2), (3, 4))], axis=1
        )
        right, losses = probed(states, parts)
        assert (losses[1, 0] == losses[0, 1]).all()
        for layer, side, seed in ((0, 0, 0), (1, 0, 1), (1, 1, 2), (2, 0, 3)):
            wanted = held_out(drawn(60, 5, 2.0, seed), parts[0].classes, parts[0].folds)
            np.testing.assert_array_equal(right[layer, side], wanted[0])
            np.testing.assert_array_equal(losses[layer, side], wanted[1])


class TestParts:
    def test_groups_stay_in_one_fold_and_each_answer_is_in_all(self) -> None:
        groups = [f"picture {row // 2}" for row in range(60)]
        answers = [row // 20 for row in range(60)]
        folds = folds_of(groups, answers)
        assert all(
            len({fold for fold, group in zip(folds, groups, strict=True) if group == name}) == 1 for name in groups
        )
        assert all(len(set(folds[np.array(answers) == answer])) == N_FOLDS for answer in range(3))

    def test_tasks_are_apart_and_answers_are_told_without_case(self) -> None:
        tasks = [("math", "count")] * 12 + [("math", "read")] * 12
        parts, left_out = parts_of(tasks, ["Two", "three"] * 6 + ["yes", "No "] * 6, [str(row) for row in range(24)])
        assert [(part.name, len(part.rows)) for part in parts] == [(("math", "count"), 12), (("math", "read"), 12)]
        assert parts[0].classes[:2].tolist() == [1, 0]  # three before two
        assert left_out == {}

    def test_rare_answers_are_left_out_with_their_number(self) -> None:
        parts, left_out = parts_of(
            [("math", "")] * 14, ["1", "2"] * 5 + ["3"] * 3 + [None], [str(row) for row in range(14)]
        )
        assert len(parts[0].rows) == 10
        assert left_out["math"].startswith("4 prompts of 14")

    def test_five_prompts_on_one_picture_are_no_five(self) -> None:
        parts, left_out = parts_of([("math", "")] * 20, ["1", "2"] * 10, [str(row % 8) for row in range(20)])
        assert parts == []
        assert (
            "expected two answers that 5 pictures or more have, got 4 for the second of 2 answers" in left_out["math"]
        )

    def test_nothing_to_probe_is_refused_with_the_reason(self) -> None:
        _, left_out = parts_of([("art", "style")] * 6, ["blue"] * 6, list("abcdef"))
        message = str(none_to_probe(left_out))
        assert message.startswith("The answers cannot be probed: art, style: expected two answers")
        assert "got 0 for the second of 1 answer" in message
        assert message.endswith("name their tasks.")
