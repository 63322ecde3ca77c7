"""The measures in a recording's file, by the version that wrote it. Nothing is read before its type and shape are as expected."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlm_analysis.recording.measures import triangle
from vlm_analysis.saved import Arrays
from vlm_analysis.words import TOKEN_GROUPS


def _parts(arrays: Arrays, names: list[str], n_prompts: int, kind: np.dtype[Any]) -> dict[str, np.ndarray]:
    """Return the arrays of these measures, and of the prompts' keys; unknown ones, of a newer version, are left out."""
    known = [name for name in kind.names or () if name in names]
    return {name: arrays.get(name, kind[name].base, (n_prompts, *kind[name].shape)) for name in known}


def _parts_of_version_2(
    arrays: Arrays, names: object, n_prompts: int, expected: np.dtype[Any]
) -> dict[str, np.ndarray]:
    """Return the measures of version 2: fields of one array."""
    _, kind, _ = arrays.header("rows")
    if any(name not in (expected.names or ()) or kind[name] != expected[name] for name in kind.names or ()):
        raise ValueError("expected the measures of version 2 in rows, got others")
    rows = arrays.get("rows", kind, (n_prompts,))
    return {name: rows[name] for name in rows.dtype.names or ()}


def _parts_of_version_1(arrays: Arrays, names: object, n_prompts: int, kind: np.dtype[Any]) -> dict[str, np.ndarray]:
    """Return the measures of version 1: four arrays, spans as whole matrices."""
    n_layers = kind["sinks"].shape[0]
    groups, ends = len(TOKEN_GROUPS), n_layers + 1
    parts = {"token_counts": arrays.get("token_counts", None, (n_prompts, groups))}
    parts["nonfinite"] = arrays.get("nonfinite", None, (n_prompts, n_layers))
    parts["cosine"] = arrays.get("layer_cosine", None, (n_prompts, n_layers, groups))
    parts["span"] = triangle(arrays.get("span_cosine", None, (n_prompts, groups, ends, ends)))
    return parts


PARTS = {1: _parts_of_version_1, 2: _parts_of_version_2, 3: _parts}
