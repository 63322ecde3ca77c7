"""The ridge probe a second time: normal equations of the width, one prompt at a time, and mean states read with hooks of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from vlm_analysis import AnswerProbe, Prompt, PromptSet
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.answerprobe import N_FOLDS, RIDGES, SHARPNESS


def made_probe(model: ModelInfo, domains: tuple[str, ...] = ("a",) * 6 + ("b",) * 6, **changes: Any) -> AnswerProbe:
    """Return a probe with random numbers, of prompts "p0", "p1", … of these domains without tasks, each a group of its own."""
    rng, n = np.random.default_rng(0), len(domains)
    shape = (2, model.n_layers, 2, n)
    index = pd.MultiIndex.from_tuples([(name, "") for name in dict.fromkeys(domains)], names=["domain", "task"])
    parts = [{"n_prompts": domains.count(name), "n_answers": 2, "most_frequent": 0.5} for name, _ in index]
    fields = {"ids": tuple(f"p{row}" for row in range(n)), "tasks": ("",) * n, "groups": tuple(map(str, range(n)))}
    right, losses = rng.integers(0, 2, shape).astype(float), rng.random(shape)
    told = {"parts": pd.DataFrame(parts, index=index), "right": right, "log_loss": losses, "domains": domains}
    return AnswerProbe(**{"model": model, "prompts": "p" * 64, **fields, **told, **changes})


def pictures() -> PromptSet:
    """Return ten prompts of one task with two answers, each on a picture of its own."""
    shades = [(180 + 5 * row, 20, 20) if row % 2 else (20, 20, 180 + 5 * row) for row in range(10)]
    return PromptSet(
        Prompt((Image.new("RGB", (32, 32), shade),), "what colour?", "general", f"p{row}", ("red", "blue")[row % 2])
        for row, shade in enumerate(shades)
    )


def outputs(states: np.ndarray, classes: np.ndarray, asked: np.ndarray, ridge: float) -> np.ndarray:
    """Return the (n_asked, n_answers) outputs of a ridge regression of one-hot answers on standardised states."""
    width = states.shape[1]
    mean, spread = states.mean(axis=0), states.std(axis=0)
    z = np.array([(row - mean) / spread / math.sqrt(width) for row in states])
    found = np.zeros((len(asked), classes.max() + 1))
    for answer in range(classes.max() + 1):
        target = (classes == answer).astype(float)
        weights = np.linalg.solve(z.T @ z + ridge * len(z) * np.eye(width), z.T @ (target - target.mean()))
        for place, row in enumerate(asked):
            found[place, answer] = target.mean() + (row - mean) / spread / math.sqrt(width) @ weights
    return found


def loss(row: np.ndarray, answer: int, sharp: float) -> float:
    return math.log(sum(math.exp(sharp * value) for value in row)) - sharp * row[answer]


def held_out_again(states: np.ndarray, classes: np.ndarray, folds: np.ndarray) -> tuple[list[float], list[float]]:
    """Return whether each prompt's answer is named, and its log loss, as `answerprobe.held_out`."""
    right, losses = [math.nan] * len(classes), [math.nan] * len(classes)
    for fold in range(N_FOLDS):
        after = (fold + 1) % N_FOLDS
        fit, check = (folds != fold) & (folds != after), folds == after
        tried = {}
        for ridge in RIDGES:
            found = outputs(states[fit], classes[fit], states[check], ridge)
            for sharp in SHARPNESS:
                each = [loss(row, answer, sharp) for row, answer in zip(found, classes[check], strict=True)]
                tried[ridge, sharp] = sum(each) / len(each)
        ridge, sharp = min(tried, key=tried.__getitem__)
        for place in np.flatnonzero(folds == fold):
            row = outputs(states[folds != fold], classes[folds != fold], states[place : place + 1], ridge)[0]
            right[place], losses[place] = float(row.argmax() == classes[place]), loss(row, classes[place], sharp)
    return right, losses
