"""The table of measures that are recorded of every decoder layer: names, shapes and formulas of a recording's row.

Notation: x is the true input of a layer, y its raw output, m the stream between its attention and its MLP, all at one token, in
float32. "mean" is over a prompt's tokens of one group, in float64. Pages take their words from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_analysis.words import TOKEN_GROUPS

DELTAS = (0.01, 0.02, 0.05, 0.1, 0.2)  # thresholds of "the token changed", in 1 − cosine; our choice
SHARES = (0.25, 0.5, 0.75)  # shares of tokens taken as important; our choice, the paper gives none
SINK_FACTOR = 20.0  # a token whose norm is so many times its layer's median counts as a sink; our choice
HSIC_PARTS = ("input·input", "input·output", "output·output")
KEY_LENGTH = 32


@dataclass(frozen=True)
class Measure:
    """One field of a recording's row.

    Attributes:
        title: its name on the pages.
        formula: what is computed, in the notation of this module.
        source: where it comes from; "" for plain bookkeeping.
        axes: its shape, out of layer, group, delta, share, hsic, span (the upper triangle of all pairs of streams)
            and tower (a layer of the vision encoder).
        kind: numpy's type.
        bounds: least and largest value, but for rounding.
    """

    title: str
    formula: str
    source: str
    axes: tuple[str, ...]
    kind: str = "<f8"
    bounds: tuple[float, float] = (-np.inf, np.inf)


_COSINE, _SHARE, _POSITIVE = (-1.0, 1.0), (0.0, 1.0), (0.0, np.inf)
_ROUNDING = 1e-3
_LAYER, _GROUPED = ("layer",), ("layer", "group")
MEASURES: dict[str, Measure] = {
    "cosine": Measure("Layer similarity", "mean cos(x, y)", "ShortGPT, arXiv:2403.03853", _GROUPED, bounds=_COSINE),
    "cosine_std": Measure("Spread over tokens", "standard deviation of cos(x, y)", "", _GROUPED, bounds=_POSITIVE),
    "changed": Measure(
        "Share of tokens changed",
        "share of tokens with 1 − cos(x, y) ≥ δ",
        "proximal redundancy, arXiv:2509.25584",
        (*_GROUPED, "delta"),
        bounds=_SHARE,
    ),
    "update": Measure("Relative update", "mean ‖y − x‖ / ‖x‖", "", _GROUPED, bounds=_POSITIVE),
    "norm_ratio": Measure("Norm ratio", "mean ‖y‖ / ‖x‖", "", _GROUPED, bounds=_POSITIVE),
    "output_rms": Measure(
        "Output norm", "root of mean ‖y‖²", "sensitivity in arXiv:2605.25842", _GROUPED, bounds=_POSITIVE
    ),
    "attention_cosine": Measure(
        "Attention similarity", "mean cos(x, m)", "LLM-Drop, arXiv:2406.15786", _GROUPED, bounds=_COSINE
    ),
    "mlp_cosine": Measure("MLP similarity", "mean cos(m, y)", "LLM-Drop, arXiv:2406.15786", _GROUPED, bounds=_COSINE),
    "hsic": Measure(
        "Linear HSIC, unbiased",
        "of x with x, x with y, y with y over the tokens of the group",
        "arXiv:1905.00414; the unbiased minibatch form of arXiv:2010.15327; one prompt is one batch",
        (*_GROUPED, "hsic"),
    ),
    "span": Measure(
        "Span similarity",
        "mean cos of the streams entering layer i and layer j",
        "arXiv:2403.17887",
        ("group", "span"),
        bounds=_COSINE,
    ),
    "cross_modal": Measure(
        "Cross-modal distance",
        "‖mean y over vision − mean y over text‖ / mean ‖y‖ over both",
        "µCRASP, arXiv:2605.25842; per prompt is our choice",
        _LAYER,
        bounds=_POSITIVE,
    ),
    "visual_attention": Measure(
        "Visual attention ratio",
        "share of the attention of text queries that goes to vision keys",
        "Skip-It?, arXiv:2509.25584",
        _LAYER,
        bounds=_SHARE,
    ),
    "important_cosine": Measure(
        "Similarity of important tokens",
        "mean cos(x, y) over the tokens with the largest attention weights",
        "Short-LVLM, arXiv:2507.23362; each layer's own map and the shares are our choices",
        ("layer", "share"),
        bounds=_COSINE,
    ),
    "sinks": Measure(
        "Sink tokens", f"tokens with ‖y‖ over {SINK_FACTOR:g} × the median", "", _LAYER, "<i8", bounds=_POSITIVE
    ),
    "nonfinite": Measure("Not finite", "tokens whose cosine is no number", "", _LAYER, "<i8", bounds=_POSITIVE),
    "tower_cosine": Measure(
        "Vision encoder: layer similarity",
        "mean cos(x, y) over the tokens of the vision encoder, of its own layers",
        "ShortGPT's measure, arXiv:2403.03853; of the vision encoder is our choice",
        ("tower",),
        bounds=_COSINE,
    ),
    "token_counts": Measure("Tokens", "tokens of the prompt in the group", "", ("group",), "<i8", bounds=_POSITIVE),
}


def axis_lengths(n_layers: int, n_tower: int = 0) -> dict[str, int]:
    """Return the length of each axis of `MEASURES` for a model of `n_layers`, and `n_tower` in its vision encoder."""
    return {
        "layer": n_layers,
        "group": len(TOKEN_GROUPS),
        "delta": len(DELTAS),
        "share": len(SHARES),
        "hsic": len(HSIC_PARTS),
        "span": n_layers * (n_layers + 1) // 2,
        "tower": n_tower,
    }


def row_type(n_layers: int, n_tower: int = 0) -> np.dtype[Any]:
    """Return the structured type of one prompt's row: its key, then every measure."""
    lengths = axis_lengths(n_layers, n_tower)
    shapes = {name: tuple(lengths[axis] for axis in measure.axes) for name, measure in MEASURES.items()}
    return np.dtype(
        [("key", f"S{KEY_LENGTH}")] + [(name, measure.kind, shapes[name]) for name, measure in MEASURES.items()]
    )


def empty_rows(n_prompts: int, n_layers: int, n_tower: int = 0) -> np.ndarray:
    """Return (n_prompts,) rows without measurements: NaN, and zero for counts."""
    rows = np.zeros(n_prompts, row_type(n_layers, n_tower))
    for name, measure in MEASURES.items():
        if measure.kind == "<f8":
            rows[name] = np.nan
    return rows


def filled_rows(n_prompts: int, n_layers: int, parts: Mapping[str, np.ndarray], n_tower: int = 0) -> np.ndarray:
    """Return (n_prompts,) rows with the arrays of these fields; other fields are as in `empty_rows`.

    Raises:
        ValueError, TypeError: an array of another shape, or of numbers of another kind.
    """
    rows = empty_rows(n_prompts, n_layers, n_tower)
    for name in set(parts) & set(rows.dtype.names or ()):  # other fields are of a newer version
        values, field = parts[name], rows[name]
        if values.shape != field.shape:
            raise ValueError(f"expected {name} of shape {field.shape}, got {values.shape}")
        field[...] = values.astype(field.dtype, casting="same_kind")
    return rows


def check_ranges(rows: np.ndarray) -> None:
    """Check that no value of (n_prompts,) rows lies beyond the bounds of its measure; NaN, which was not measured, does not.

    Raises:
        ValueError: one does.
    """
    for name, measure in MEASURES.items():
        least, most = measure.bounds
        if np.any(rows[name] < least - _ROUNDING) or np.any(rows[name] > most + _ROUNDING):
            raise ValueError(f"expected {name} from {least:g} to {most:g}, got others")


def triangle(matrices: np.ndarray) -> np.ndarray:
    """Return the entries above the diagonal of (..., n, n) as (..., n(n-1)/2), row by row."""
    above = np.triu_indices(matrices.shape[-1], 1)
    return matrices[..., above[0], above[1]]


def from_triangle(values: np.ndarray, n: int) -> np.ndarray:
    """Return the symmetric (..., n, n) matrices with `values` (..., n(n-1)/2) above the diagonal and ones on it.

    A stream is equal to itself; where nothing was measured the diagonal is NaN too.
    """
    above = np.triu_indices(n, 1)
    matrices = np.empty((*values.shape[:-1], n, n))
    matrices[..., above[0], above[1]] = values
    matrices[..., above[1], above[0]] = values
    index = np.arange(n)
    missing = (
        np.isnan(values).all(axis=-1, keepdims=True) if values.shape[-1] else np.zeros((*values.shape[:-1], 1), bool)
    )
    matrices[..., index, index] = np.where(missing, np.nan, 1.0)
    return matrices


def mean_of_prompts(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of `values` (n_prompts, ...) over the prompts that count (bool, broadcast); none gives NaN.

    Values are sorted first, so that no order of prompts changes a bit.
    """
    counts = np.broadcast_to(counts, values.shape)
    kept = np.sort(np.where(counts, values, 0.0), axis=0)
    number = counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, kept.sum(axis=0) / np.maximum(number, 1), np.nan)
