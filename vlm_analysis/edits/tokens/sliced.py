"""Let vision tokens skip a layer, sliced: their rows leave the layer's call, and its cache where no other layer counts by it.

A layer's cache keeps a place for every token where transformers counts tokens by it (the first layer of each kind), where it slides or has
a fixed size. Other layers cache text alone. Masks and positions are those of the whole sequence, so distances stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from vlm_analysis.edits.tokens.masked import frozen_masked, mask_of
from vlm_analysis.edits.tokens.queries import Queries
from vlm_analysis.edits.tokens.rows import Places, Rows

_LAST = ("position_ids", "cache_position")  # arguments whose last dimension is that of the rows
_TURNS = "position_embeddings"  # tensors in which it is the last but one


def absent_sliced(forward: Callable[..., Any], given: dict[str, Any], rows: Rows) -> Any:
    """Run a layer on text alone, which sees text alone; the states of vision tokens pass unchanged."""
    states, cache = given["hidden_states"], given.get("past_key_values")
    rows.of(states)
    if rows.keys(cache, states.device) is None:
        return forward(**given)
    text, keys = rows.text(cache, states.device)
    mask, n_rows = given.get("attention_mask"), states.shape[1]
    if mask is not None or not text.is_whole or not keys.is_whole:
        mask = mask_of(given, rows)
        visible = keys.shifted(max(0, rows.n_keys - mask.shape[-1]))
        mask = _at_keys(text.take(mask, 2), visible)
    taken = _of_rows(given, text, n_rows) | {"attention_mask": mask}
    if cache is not None:
        taken["past_key_values"] = _TextKeys(cache, rows, text, keys)
    return _back(states, forward(**taken), text)


def frozen_sliced(forward: Callable[..., Any], given: dict[str, Any], rows: Rows, queries: Queries) -> Any:
    """Run a layer on text alone, which sees the keys and values of all tokens; the states of vision tokens pass unchanged.

    Vision tokens run no further than to their keys and values: the layer hands these to its cache before it attends. Their queries are
    left out.
    """
    states, cache = given["hidden_states"], given.get("past_key_values")
    rows.of(states)
    rows.keys(cache, states.device)
    if not rows.has_vision:
        return forward(**given)
    (text, _), images, n_rows = rows.text(None, states.device), rows.images(states.device), states.shape[1]
    caught = _Caught(cache)
    seen = _of_rows(given, images, n_rows) | {"attention_mask": None, "past_key_values": caught}
    try:
        queries.run_without(lambda: forward(**seen))
    except _EnoughSeen:
        pass
    else:  # the layer hands nothing to a cache
        return frozen_masked(forward, given, rows)
    joined = _AllKeys(cache, caught, text, images, n_rows)
    taken = _of_rows(given, text, n_rows) | {
        "attention_mask": text.take(mask_of(given, rows), 2),
        "past_key_values": joined,
    }
    return _back(states, forward(**taken), text)


def _of_rows(given: dict[str, Any], places: Places, n_rows: int) -> dict[str, Any]:
    """Return a layer's arguments for some of the rows; mask and cache are left to the caller."""
    return {name: _taken(name, value, places, n_rows) for name, value in given.items()}


def _taken(name: str, value: Any, places: Places, n_rows: int) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_taken(name, one, places, n_rows) for one in value)
    if not torch.is_tensor(value) or name == "attention_mask":
        return value
    if name in _LAST:
        return places.take(value, -1, batch=max(0, value.dim() - 2))
    if name == _TURNS:
        return places.take(value, -2, batch=max(0, value.dim() - 3))
    return places.take(value, 1) if value.dim() > 1 and value.shape[1] == n_rows else value


def _at_keys(mask: torch.Tensor, keys: Places) -> torch.Tensor:
    """Return a mask (batch, …, n_rows, n_keys) at some keys; places that a prompt does not have are hidden."""
    taken = keys.take(mask, 3)
    if keys.is_whole:
        return taken
    missing = (keys.index < 0)[:, None, None]
    return taken & ~missing if taken.dtype == torch.bool else taken.masked_fill(missing, torch.finfo(taken.dtype).min)


def _back(states: torch.Tensor, output: Any, text: Places) -> Any:
    """Return a layer's output for all rows: vision tokens keep the states that they came with."""
    new = output[0] if isinstance(output, tuple) else output
    whole = states.to(new.device, copy=True)
    text.to(new.device).put(whole, new)
    return (whole, *output[1:]) if isinstance(output, tuple) else whole


class _Stand:
    """Stands for a model's cache while one layer runs."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def get_seq_length(self, *of_layer: int) -> int:
        """Return how many tokens were cached before; where the model runs without a cache, none."""
        return 0 if self._cache is None else int(self._cache.get_seq_length(*of_layer))


class _TextKeys(_Stand):
    """Hands a layer the keys and values of text alone."""

    def __init__(self, cache: Any, rows: Rows, text: Places, keys: Places) -> None:
        super().__init__(cache)
        self._rows, self._text, self._keys = rows, text, keys

    def update(self, keys: Any, values: Any, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not _keeps_all(self._cache, layer_idx):
            return self._cache.update(keys, values, layer_idx, *args, **kwargs)
        n_rows = self._rows.vision.shape[1]
        whole = [_spread([(self._text, one)], n_rows) for one in (keys, values)]
        kept = self._cache.update(*whole, layer_idx, *args, **kwargs)
        places = self._keys.to(kept[0].device).shifted(max(0, self._rows.n_keys - kept[0].shape[-2]))
        return places.take(kept[0], -2), places.take(kept[1], -2)


def _keeps_all(cache: Any, layer: int) -> bool:
    """Return whether a layer's cache has a place for every token: tokens are counted by it, or it is of a fixed size or slides."""
    if layer == 0 or layer >= len(cache.layers):
        return layer == 0
    plain = [type(one) is DynamicLayer for one in cache.layers]
    return not plain[layer] or plain.index(True) == layer


class _EnoughSeen(Exception):  # noqa: N818 - ends a pass whose rest is not needed
    pass


class _Caught(_Stand):
    """Takes the keys and values of vision tokens, and ends the layer's pass."""

    def __init__(self, cache: Any) -> None:
        super().__init__(cache)
        self.keys = self.values = torch.zeros(0)

    def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        self.keys, self.values = keys, values
        raise _EnoughSeen


class _AllKeys(_Stand):
    """Joins the keys and values of text with those of vision tokens."""

    def __init__(self, cache: Any, caught: _Caught, text: Places, images: Places, n_rows: int) -> None:
        super().__init__(cache)
        self._caught, self._text, self._images, self._n_rows = caught, text, images, n_rows

    def update(self, keys: Any, values: Any, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        pairs = ((keys, self._caught.keys), (values, self._caught.values))
        whole = [_spread([(self._text, text), (self._images, seen)], self._n_rows) for text, seen in pairs]
        return (whole[0], whole[1]) if self._cache is None else self._cache.update(*whole, layer_idx, *args, **kwargs)


def _spread(parts: list[tuple[Places, torch.Tensor]], n_rows: int) -> torch.Tensor:
    """Return tensors (batch, heads, n, size) put in their places among all rows of a pass; zeros elsewhere."""
    first = parts[0][1]
    whole = first.new_zeros(first.shape[0], n_rows, first.shape[1], first.shape[-1])
    for places, values in parts:
        places.to(values.device).put(whole, values.transpose(1, 2))
    return whole.transpose(1, 2)
