"""Probing the answers with a model: its mean states are those that hooks read, and pictures and answers are kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracles import ask
from PIL import Image
from probed import held_out_again

from vlm_analysis import LoadedModel, Prompt, PromptSet, probe_answers
from vlm_analysis.errors import RecordingError
from vlm_analysis.recording.answerprobe import folds_of

N = 12


def pictures(answers: str = "red blue") -> PromptSet:
    """Return prompts on pictures that differ a little, half of them with one answer and half with the other."""
    shades = [(180 + 5 * row, 20, 20) if row % 2 else (20, 20, 180 + 5 * row) for row in range(N)]
    return PromptSet(
        Prompt(
            (Image.new("RGB", (64, 64), shade),),
            "what colour is the circle?",
            "general",
            f"p{row}",
            answers.split()[row % 2],
        )
        for row, shade in enumerate(shades)
    )


def states_of(loaded: LoadedModel, prompts: PromptSet) -> np.ndarray:
    """Return (n_prompts, vision or text, n_layers, in or out, hidden) means over tokens, one prompt at a time."""
    layers = loaded.model.get_decoder().layers
    rows = []
    for prompt in prompts:
        inputs = ask(loaded, prompt)
        seen: dict[int, list[torch.Tensor]] = {}

        def note(at: int, args: Any, kwargs: Any, output: Any, seen: Any = seen) -> None:
            entered = args[0] if args else kwargs["hidden_states"]
            seen[at] = [
                entered[0].clone(),
                output[0].clone() if isinstance(output, tuple) else output.squeeze(0).clone(),
            ]

        handles = [
            layer.register_forward_hook(
                lambda _, args, kwargs, output, at=at: note(at, args, kwargs, output), with_kwargs=True
            )
            for at, layer in enumerate(layers)
        ]
        with torch.no_grad():
            loaded.model(**inputs)
        for handle in handles:
            handle.remove()
        vision = inputs["mm_token_type_ids"][0].bool()
        groups = (vision, ~vision)
        rows.append([[[state[group].mean(dim=0).numpy() for state in seen[at]] for at in seen] for group in groups])
    return np.array(rows)


def test_it_probes_the_mean_states_that_enter_and_leave_each_layer(small: LoadedModel) -> None:
    prompts = pictures()
    probe = probe_answers(small, prompts, batch_size=5)
    assert probe.right.shape == (2, 8, 2, N)
    assert probe.ids == tuple(f"p{row}" for row in range(N))
    states, answers = states_of(small, prompts).astype(float), np.array([1, 0] * 6)  # blue before red
    folds = folds_of(prompts.groups.names, answers)
    for group, layer, side in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 5, 1)):  # DeepStack stands between layers 0 and 1
        right, losses = held_out_again(
            states[:, group, layer, side] + np.random.default_rng(0).normal(0, 1e-9, (N, 96)), answers, folds
        )
        np.testing.assert_allclose(probe.log_loss[group, layer, side], losses, rtol=1e-2, atol=1e-3)
        np.testing.assert_array_equal(probe.right[group, layer, side], right)
    assert probe.parts.loc[("general", "")].to_dict() == {"n_prompts": 12, "n_answers": 2, "most_frequent": 0.5}


def test_what_cannot_be_probed_is_refused_before_the_model_runs(
    small: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(small.model), "forward", None)
    with pytest.raises(RecordingError, match="cannot be probed: general: expected two answers that 5 pictures"):
        probe_answers(small, pictures("red red"))
