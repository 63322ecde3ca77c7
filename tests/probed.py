"""The ridge probe a second time: normal equations of the width, one prompt at a time, and mean states read with hooks of its own."""

from __future__ import annotations

import math

import numpy as np

from vlm_analysis.recording.answerprobe import N_FOLDS, RIDGES, SHARPNESS


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
