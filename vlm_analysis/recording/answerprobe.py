"""How well a prompt's answer can be told from its mean vision or text state before and behind a layer: a ridge probe, held out.

The probe is linear and sees one mean state a prompt, so what it tells is a lower bound of what the states hold. It is fitted for each task
by itself (each domain, where prompts have no task), as answers of different tasks have nothing in common.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pandas as pd

from vlm_analysis.errors import RecordingError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.words import brief, counted, prompts_in

PROBED = ("vision", "text")  # the token groups whose mean states are probed
LEAST_A_CLASS = 5  # groups of prompts that have an answer, for it to count
N_FOLDS = 5
RIDGES = (
    1e-4,
    1e-3,
    1e-2,
    1e-1,
    1.0,
)  # times the number of prompts, on standardised states over the root of their width; our choice
SHARPNESS = (
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    32.0,
)  # of the softmax that makes probabilities of the probe's outputs; our choice


@dataclass(frozen=True, eq=False)
class AnswerProbe:
    """Held-out answers of the probes, prompt by prompt.

    Attributes:
        model: the probed model.
        prompts: fingerprint of the prompt set.
        ids, domains, tasks, groups: of each prompt that was probed, in the order of the set; groups are never in two folds.
        right: (2, n_layers, 2, n_prompts) float64: 1 where the probe names the answer, by `PROBED`, layer, and whether it reads the states
            that enter the layer or those that leave it. NaN where they are not finite, or the layer did not run.
        log_loss: the same shape, minus the log of the probability that the probe gives the answer, in nats.
        parts: by domain and task: prompts, answers, and the share of the most frequent one.
        left_out: why a task or answers of it were not probed, by "domain, task".
        set_aside: the prompts that the model refused, by id, each with the reason.
    """

    model: ModelInfo
    prompts: str
    ids: tuple[str, ...]
    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    groups: tuple[str, ...]
    right: np.ndarray
    log_loss: np.ndarray
    parts: pd.DataFrame
    left_out: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief(self, self.model.name, counted(len(self.parts), "task"), prompts_in(self.domains))

    def rows(self, domain: str | None = None) -> np.ndarray:
        """Return the indices of the prompts of a domain; all for None.

        Raises:
            RecordingError: none of its prompts was probed.
        """
        found = [row for row, name in enumerate(self.domains) if domain in (None, name)]
        if not found:
            raise RecordingError(
                f"No answers of this domain were probed: expected one of {sorted(set(self.domains))}, got {domain!r}. Probe its prompts "
                "too."
            )
        return np.array(found)


@dataclass(frozen=True)
class Part:
    """The prompts of one task whose answers can be probed: their rows, and the number of each answer."""

    name: tuple[str, str]
    rows: np.ndarray
    classes: np.ndarray
    folds: np.ndarray


def parts_of(
    tasks: Sequence[tuple[str, str]], answers: Sequence[str | None], groups: Sequence[str], seed: int = 0
) -> tuple[list[Part], dict[str, str]]:
    """Return the parts to probe, and why others are left out, by "domain, task".

    An answer counts where at least 5 groups have it, and a task where it has two such answers. Answers are compared without case and
    runs of blanks. Folds keep groups whole and spread each answer.

    Args:
        tasks: domain and task of each prompt, "" without one.
        answers: None where a prompt has none.
        groups: of each prompt the name of its group.
    """
    rows_of = defaultdict[tuple[str, str], list[int]](list)
    for row, name in enumerate(tasks):
        rows_of[name].append(row)
    parts: list[Part] = []
    left_out: dict[str, str] = {}
    for name, rows in rows_of.items():
        said = {row: " ".join(str(answers[row]).lower().split()) for row in rows if answers[row] is not None}
        counts = Counter(answer for answer, _ in {(answer, groups[row]) for row, answer in said.items()})
        names = sorted(answer for answer, n in counts.items() if n >= LEAST_A_CLASS)
        kept = [row for row in said if said[row] in names]
        if len(names) < 2:
            most = counts.most_common(2)[-1][1] if len(counts) > 1 else 0
            left_out[_words(name)] = (
                f"expected two answers that {LEAST_A_CLASS} pictures or more have, got {most} for the second of "
                f"{counted(len(counts), 'answer')}"
            )
            continue
        if len(kept) < len(rows):
            left_out[_words(name)] = (
                f"{counted(len(rows) - len(kept), 'prompt')} of {len(rows)}: no answer, or one of fewer than {LEAST_A_CLASS} pictures"
            )
        classes = np.array([names.index(said[row]) for row in kept])
        parts.append(Part(name, np.array(kept), classes, folds_of([groups[row] for row in kept], classes, seed)))
    return parts, left_out


def folds_of(groups: Sequence[str], classes: Sequence[int] | np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the fold of each prompt, in 0..4: groups stay whole, and those whose first prompt has one answer go round the folds."""
    first: dict[str, int] = {}
    for group, answer in zip(groups, classes, strict=True):
        first.setdefault(group, int(answer))
    names = sorted(first)
    Random(seed).shuffle(names)
    fold = {name: place % N_FOLDS for place, name in enumerate(sorted(names, key=first.__getitem__))}
    return np.array([fold[group] for group in groups])


def held_out(states: np.ndarray, classes: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each prompt whether the probe of the other folds names its answer (0 or 1), and minus the log of its probability.

    Ridge and sharpness are those of least log loss on the next fold, by a probe of the folds that are left; the probe is then fitted on all
    folds but the prompt's own. NaN throughout where a state is not finite.

    Args:
        states: (n_prompts, width).
        classes: (n_prompts,) the number of each answer.
        folds: (n_prompts,) as `folds_of` makes them.
    """
    right, log_loss = np.full(len(classes), np.nan), np.full(len(classes), np.nan)
    if not np.isfinite(states).all():
        return right, log_loss
    targets = np.eye(int(classes.max()) + 1)[classes]
    for fold in range(N_FOLDS):
        test, check = folds == fold, folds == (fold + 1) % N_FOLDS
        fit = ~test & ~check
        outputs = ridge_outputs(states[fit], targets[fit], states[check], RIDGES)
        losses = [[_losses(sharp * one, classes[check]).mean() for sharp in SHARPNESS] for one in outputs]
        ridge, sharp = np.unravel_index(int(np.argmin(losses)), (len(RIDGES), len(SHARPNESS)))
        (found,) = ridge_outputs(states[~test], targets[~test], states[test], RIDGES[ridge : ridge + 1])
        right[test] = found.argmax(axis=1) == classes[test]
        log_loss[test] = _losses(SHARPNESS[sharp] * found, classes[test])
    return right, log_loss


def ridge_outputs(
    states: np.ndarray, targets: np.ndarray, asked: np.ndarray, ridges: Sequence[float]
) -> list[np.ndarray]:
    """Return the (n_asked, n_answers) outputs of the ridge regression of targets on standardised states, one array a ridge.

    Numbers of a state that do not vary count as 0. The mean of the targets is not shrunk. Solved on the shorter side of the states.
    """
    mean, spread = states.mean(axis=0), states.std(axis=0)
    scale = np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, np.inf) * np.sqrt(states.shape[1])
    z, base = (states - mean) / scale, targets.mean(axis=0)
    wide = z.shape[0] <= z.shape[1]
    values, vectors = np.linalg.eigh(z @ z.T if wide else z.T @ z)
    values = np.maximum(values, 0.0)
    right_side = vectors.T @ (targets - base if wide else z.T @ (targets - base))
    found = []
    for ridge in ridges:
        solved = vectors @ (right_side / (values + ridge * len(z))[:, None])
        found.append(base + (asked - mean) / scale @ (z.T @ solved if wide else solved))
    return found


def _losses(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return minus the log of the softmax at each prompt's answer."""
    outputs = outputs - outputs.max(axis=1, keepdims=True)
    return np.log(np.exp(outputs).sum(axis=1)) - outputs[np.arange(len(classes)), classes]


def probed(
    states: np.ndarray, parts: Sequence[Part], on_layer: Callable[[], object] = lambda: None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n_layers, 2, n_kept) right and log loss of all parts, one behind the other.

    Args:
        states: (n_prompts, n_layers, 2, width): what enters a layer and what leaves it. Where a layer gets what the one before it made,
            it is probed once.
        on_layer: called before each layer of each part.
    """
    n_layers = states.shape[1]
    shape = (n_layers, 2, sum(len(part.rows) for part in parts))
    right, log_loss = np.full(shape, np.nan), np.full(shape, np.nan)
    start = 0
    for part in parts:
        place = slice(start, start := start + len(part.rows))
        before: np.ndarray | None = None
        for layer, side in np.ndindex(n_layers, 2):
            if side == 0:
                on_layer()
            own = states[part.rows, layer, side]
            if side == 0 and before is not None and np.array_equal(own, before):
                right[layer, 0, place], log_loss[layer, 0, place] = (
                    right[layer - 1, 1, place],
                    log_loss[layer - 1, 1, place],
                )
            else:
                right[layer, side, place], log_loss[layer, side, place] = held_out(
                    own.astype(np.float64), part.classes, part.folds
                )
            before = own if side else None
    return right, log_loss


def described(parts: Sequence[Part]) -> pd.DataFrame:
    """Return prompts, answers and the share of the most frequent answer of each part, by domain and task."""
    index = pd.MultiIndex.from_tuples([part.name for part in parts], names=["domain", "task"])
    rows = [
        {
            "n_prompts": len(part.rows),
            "n_answers": int(part.classes.max()) + 1,
            "most_frequent": float(np.bincount(part.classes).max() / len(part.rows)),
        }
        for part in parts
    ]
    return pd.DataFrame(rows, index=index)


def part_lines(probe: AnswerProbe) -> list[str]:
    """Return for each task how much of it was probed, and what naming its most frequent answer gets, in words."""
    return [
        f"{_words(name)}: {counted(int(one['n_prompts']), 'prompt')} with {counted(int(one['n_answers']), 'answer')}, of which the most "
        f"frequent is right for {one['most_frequent']:.0%}"
        for name, one in zip(probe.parts.index, probe.parts.to_dict("records"), strict=True)
    ]


def none_to_probe(left_out: Mapping[str, str]) -> RecordingError:
    """Return the error for prompts of which no task can be probed; it says the first reason."""
    name, reason = next(iter(left_out.items()), ("all", "expected prompts with answers, got none"))
    return RecordingError(
        f"The answers cannot be probed: {name}: {reason}. Take more prompts, or such whose answers repeat, and name their tasks."
    )


def _words(name: tuple[str, str]) -> str:
    return ", ".join(part for part in name if part)
