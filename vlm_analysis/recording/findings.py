"""What a recording tells of its layers, as a sentence: which change their input least and most, and where domains differ."""

from __future__ import annotations

import numpy as np

from vlm_analysis.recording.recording import Recording
from vlm_analysis.words import joined, layers

N_LEAST = 3  # layers that are named, of a model with so many and three more
MOST_DOMAINS = 3  # that are named one by one


def similarity_finding(recording: Recording, token_group: str = "all") -> str:
    """Return which layers change their input least and most on each domain, and at which layer domains differ most.

    Least changed means the highest mean cosine of a layer's input and output. With more than three domains it is that of the mean over
    domains. "" where nothing was measured of the token group.
    """
    names = list(recording.domain_names)
    values = np.stack([recording.layer_similarity(name, token_group) for name in names])
    there = np.flatnonzero(np.isfinite(values).any(axis=1)).tolist()
    names, values = [names[place] for place in there], values[there]
    if not names:
        return ""
    sentences = [_extremes(names, values)]
    if len(names) > 1:
        sentences.append(_difference(names, values))
    return " ".join(filter(None, sentences))


def _extremes(names: list[str], values: np.ndarray) -> str:
    count = max(1, min(N_LEAST, values.shape[1] - N_LEAST))
    with np.errstate(invalid="ignore"):
        total = np.nanmean(values, axis=0) if np.isfinite(values).any(axis=0).all() else values.mean(axis=0)
    by_domain = [_least(row, count) for row in values]
    least = by_domain[0]
    most = int(np.nanargmin(total))
    if all(one == least for one in by_domain):
        where = "" if len(names) == 1 else " on every domain" if len(names) > 2 else f" on {joined(names)}"
        return f"{_named(least)} {_verb(least)} least{where}, layer {most} most (cosine {total[most]:.3f})."
    if len(names) > MOST_DOMAINS:
        least = _least(total, count)
        return (
            f"As a mean over {len(names)} domains {layers(least)} {_verb(least)} least, layer {most} most "
            f"(cosine {total[most]:.3f})."
        )
    parts = [f"{layers(one)} on {name}" for name, one in zip(names, by_domain, strict=True)]
    return f"Least changed is the input of {joined(parts)}; layer {most} changes it most (cosine {total[most]:.3f})."


def _least(values: np.ndarray, count: int) -> list[int]:
    """Return the layers that change their input least, ascending."""
    order = np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")
    return sorted(int(layer) for layer in order[:count] if np.isfinite(values[layer]))


def _named(numbers: list[int]) -> str:
    text = layers(numbers)
    return text[:1].upper() + text[1:]


def _verb(numbers: list[int]) -> str:
    return "changes its input" if len(numbers) == 1 else "change their input"


def _difference(names: list[str], values: np.ndarray) -> str:
    """Return at which layer two domains are furthest apart."""
    known = np.isfinite(values).sum(axis=0) > 1
    if not known.any():
        return ""
    gaps = np.where(known, np.nanmax(values, axis=0, initial=-np.inf, where=np.isfinite(values)), 0.0) - np.where(
        known, np.nanmin(values, axis=0, initial=np.inf, where=np.isfinite(values)), 0.0
    )
    layer = int(gaps.argmax())
    if gaps[layer] < 0.0005:
        return "The domains do not differ."
    column = values[:, layer]
    low, high = int(np.nanargmin(column)), int(np.nanargmax(column))
    return f"The domains differ most at layer {layer}: cosine {column[low]:.3f} on {names[low]}, {column[high]:.3f} on {names[high]}."
