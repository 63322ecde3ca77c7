"""Recordings with every measure, evaluations of left-out layers, and every criterion a second time in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis import MEASURES, Evaluation, PruneMask, Recording
from vlm_analysis.model_info import ModelInfo, TowerInfo
from vlm_analysis.recording.measures import DELTAS, SHARES, empty_rows, filled_rows, triangle
from vlm_analysis.recording.recording import Activations
from vlm_analysis.words import TOKEN_GROUPS

DOMAINS = ("math", "general", "maps")


def full_recording(
    n_prompts: int = 14,
    n_layers: int = 9,
    domains: Sequence[str] = DOMAINS,
    *,
    seed: int = 0,
    pick: Sequence[int] | None = None,
    attention: bool = True,
) -> Recording:
    """Return a recording in which every measure is drawn; `pick` takes some of its prompts, in that order."""
    rng = np.random.default_rng(seed)
    made = empty_rows(n_prompts, n_layers)
    for name, measure in MEASURES.items():
        made[name] = rng.integers(4, 9, made[name].shape) if measure.kind == "<i8" else rng.random(made[name].shape)
    made["key"] = [f"key-{number}".encode() for number in range(n_prompts)]
    made["nonfinite"] = 0
    streams = rng.normal(size=(n_prompts, len(TOKEN_GROUPS), n_layers + 1, 5)) + 1
    streams /= np.linalg.norm(streams, axis=-1, keepdims=True)
    made["span"] = triangle(streams @ streams.swapaxes(-1, -2))
    if not attention:
        made["visual_attention"], made["important_cosine"] = np.nan, np.nan
    sums, norms = rng.normal(size=(n_prompts, 2, n_layers, 6)), rng.uniform(1, 2, (n_prompts, n_layers))
    names = [domains[number % len(domains)] for number in range(n_prompts)]
    picked = list(range(n_prompts) if pick is None else pick)
    rows = {domain: [row for row in picked if names[row] == domain] for domain in dict.fromkeys(names)}
    return Recording(
        model=ModelInfo("made", "f" * 64, n_layers, protected={0: "first"}),
        prompts="p" * 64,
        prompt_ids=tuple(f"prompt-{row}" for row in picked),
        domains=tuple(names[row] for row in picked),
        rows=made[picked],
        activations={name: Activations(sums[of].sum(0), norms[of].sum(0), len(of)) for name, of in rows.items() if of},
    )


def with_tower(recording: Recording, cosines: np.ndarray, tower: TowerInfo) -> Recording:
    """Return the recording with these cosines, (prompts, n_tower), of layers of the vision encoder."""
    known = {name: recording.rows[name] for name in recording.rows.dtype.names or () if name != "tower_cosine"}
    rows = filled_rows(recording.n_prompts, recording.n_layers, known | {"tower_cosine": cosines}, tower.n_layers)
    return replace(recording, model=replace(recording.model, tower=tower), rows=rows)


def joined(one: Recording, other: Recording) -> Recording:
    """Return the recording of both parts' prompts."""
    activations = dict(one.activations)
    for name, part in other.activations.items():
        activations[name] = activations[name] + part if name in activations else part
    ids, domains = one.prompt_ids + other.prompt_ids, one.domains + other.domains
    rows = np.concatenate([one.rows, other.rows])
    return Recording(one.model, one.prompts, ids, domains, rows, one.settings, activations)


def evaluation(
    dropped: Sequence[int], kl: Sequence[float], nll: Sequence[float], domains: Sequence[str], **changes: Any
) -> Evaluation:
    """Return an evaluation with these numbers, one a prompt."""
    model = changes.get("model", ModelInfo("made", "f" * 64, changes.get("n_layers", 9)))
    frame = pd.DataFrame(
        {
            "id": changes.get("ids", [f"e{row}" for row in range(len(kl))]),
            "domain": list(domains),
            "exact_match": changes.get("exact", True),
            "answer_nll": np.array(nll, float),
            "token_agreement": changes.get("agreement", 1.0),
            "kl_to_dense": np.array(kl, float),
            "answer": "a",
            "answer_source": "given",
            "answer_ids": [[1]] * len(kl),
        }
    )
    return Evaluation(PruneMask(model.n_layers, tuple(dropped)), model, changes.get("prompts", "e" * 64), frame)


def left_out(
    n_layers: int = 9, *, seed: int = 0, domains: Sequence[str] = DOMAINS, dense: bool = True
) -> list[Evaluation]:
    """Return an evaluation of each layer left out, and of the dense model, with drawn numbers on six prompts."""
    rng = np.random.default_rng(seed)
    names = [domains[row % len(domains)] for row in range(6)]
    masks = ([()] if dense else []) + [(layer,) for layer in range(n_layers)]
    return [evaluation(mask, rng.random(6), rng.random(6), names, n_layers=n_layers) for mask in masks]


# --- the criteria in plain Python --------------------------------------------------------------------------------------


def means(recording: Recording, measure: str, domain: str | None, *index: int) -> list[float]:
    """Return each layer's mean over the prompts of a domain; `index` are places on the axes behind the layer's."""
    rows = [
        recording.rows[measure][row] for row in range(recording.n_prompts) if domain in (None, recording.domains[row])
    ]
    return [fmean(float(row[(layer, *index)]) for row in rows) for layer in range(recording.n_layers)]


def plain_z(values: Sequence[float]) -> list[float]:
    return [(value - fmean(values)) / pstdev(values) for value in values]


def columns(function: Callable[..., float], *rows: Sequence[float]) -> list[float]:
    return [function(*column) for column in zip(*rows, strict=True)]


def plain(
    recording: Recording, criterion: str, target: str, weight: float, damage: Sequence[Evaluation] = ()
) -> list[float]:
    """Return the criterion's value of each layer, from its formula, at the options' default values."""
    group, vision = TOKEN_GROUPS.index("all"), TOKEN_GROUPS.index("vision")
    names = list(dict.fromkeys(recording.domains))
    cosine = {domain: means(recording, "cosine", domain, group) for domain in names}
    aware = plain_z(cosine[target])
    rest = [cosine[domain] for domain in names if domain != target]
    others = plain_z(columns(lambda *column: fmean(column), *rest)) if rest else aware
    formulas: dict[str, Callable[[], list[float]]] = {
        "block-influence": lambda: [1 - mean for mean in means(recording, "cosine", None, group)],
        "target-aware": lambda: aware,
        "others-aware": lambda: others,
        "mixed": lambda: columns(lambda a, o: weight * a + (1 - weight) * o, aware, others),
        "mixed-others": lambda: columns(lambda a, o: weight * o + (1 - weight) * a, aware, others),
        "worst-case": lambda: columns(min, *(plain_z(cosine[domain]) for domain in names)),
        "contrast": lambda: columns(lambda a, o: a - o, aware, others),
        "important-tokens": lambda: means(recording, "important_cosine", None, SHARES.index(0.5)),
        "linear-cka": lambda: columns(
            lambda own, cross, other: cross / math.sqrt(own * other),
            *(means(recording, "hsic", None, group, part) for part in range(3)),
        ),
        "attention-similarity": lambda: means(recording, "attention_cosine", None, group),
        "mlp-similarity": lambda: means(recording, "mlp_cosine", None, group),
        "skip-geometric": lambda: [1 - mean for mean in means(recording, "cosine", None, vision)],
        "skip-proximal": lambda: means(recording, "changed", None, vision, DELTAS.index(0.05)),
        "cross-modal": lambda: means(recording, "cross_modal", None),
        "cross-modal-pooled": lambda: _pooled(recording),
        "damage-kl": lambda: _damage(damage, "kl_to_dense", target),
        "damage-nll": lambda: [value - _dense(damage, target) for value in _damage(damage, "answer_nll", target)],
    }
    return formulas[criterion]()


def _pooled(recording: Recording) -> list[float]:
    parts = list(recording.activations.values())
    count = sum(part.n_prompts for part in parts)
    found = []
    for layer in range(recording.n_layers):
        gap = [
            sum(part.sums[0, layer, place] - part.sums[1, layer, place] for part in parts) / count
            for place in range(parts[0].sums.shape[2])
        ]
        found.append(math.hypot(*gap) / (sum(part.norms[layer] for part in parts) / count))
    return found


def _damage(damage: Sequence[Evaluation], metric: str, target: str) -> list[float]:
    by_layer = {one.mask.dropped[0]: one.by_domain.loc[target, metric] for one in damage if one.mask.dropped}
    return [float(by_layer[layer]) for layer in sorted(by_layer)]


def _dense(damage: Sequence[Evaluation], target: str) -> float:
    return next(float(one.by_domain.loc[target, "answer_nll"]) for one in damage if not one.mask.dropped)
