"""Hooks on the layers of the vision encoder: the cosine of what enters and leaves each, token by token. No state outlives its layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vlm_analysis.models.inputs import Encoded
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.tower import given_to, layers_of_tower
from vlm_analysis.recording.similarity import token_cosine, units_and_norms
from vlm_analysis.recording.streams import first_of

_GRID, _PIXELS, _MASK = "image_grid_thw", "pixel_values", "pixel_attention_mask"


class TowerWatch:
    """Reads the similarity of layers of a model's vision encoder; of a model without one, of none.

    Attributes:
        layers: of the vision encoder.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = layers_of_tower(model, find_decoder_layers(model))
        self._cosines: list[list[torch.Tensor]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook every layer for one batch; the hooks are removed whatever happens."""
        self._cosines = [[] for _ in self.layers]
        handles: list[Any] = []
        try:
            for index, layer in enumerate(self.layers):
                handles += self._hooks(index, layer)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def means(self, items: Sequence[Encoded]) -> np.ndarray:
        """Return the (prompts, layers) float64 mean cosine over each prompt's tokens of the encoder in the last batch.

        Padding that the inputs name by token is left out. NaN where a prompt has no image, and where it is not known which tokens of a
        batch of several prompts are whose: alone, every prompt has its number.
        """
        found = np.full((len(items), len(self.layers)), np.nan)
        for layer, cosines in enumerate(self._cosines):
            if not cosines:
                continue
            sizes = [sum(one.numel() for one in cosines)] if len(items) == 1 else _sizes(items, cosines)
            if sizes is None:
                continue
            values = torch.cat([one.flatten() for one in cosines]).double().cpu()
            counts = _counts(items, cosines)
            for prompt, (own, counted) in enumerate(zip(values.split(sizes), counts.split(sizes), strict=True)):
                if counted.any():
                    found[prompt, layer] = float(own[counted].mean())
        return found

    def _hooks(self, index: int, layer: nn.Module) -> list[Any]:
        given: list[torch.Tensor] = []

        def before(module: Any, args: Any, kwargs: Any) -> None:
            given[:] = [units_and_norms(given_to(args, kwargs).detach().float().clone())[0]]

        def after(module: Any, args: Any, output: Any) -> None:
            state = first_of(output).detach().float()
            self._cosines[index].append(token_cosine(given.pop().to(state.device), units_and_norms(state)[0]))

        return [layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after)]


def _sizes(items: Sequence[Encoded], cosines: Sequence[torch.Tensor]) -> list[int] | None:
    """Return how many tokens of the encoder each prompt of a batch has, in order; None where that is not known."""
    if len(cosines) > 1:
        return None
    (cosine,) = cosines
    grids = [item.tensors.get(_GRID) for item in items]
    sizes = [0 if grid is None else int(grid.prod(-1).sum()) for grid in grids]
    if sum(sizes) == cosine.numel():
        return sizes
    pixels = [item.tensors.get(_PIXELS) for item in items]
    rows = [0 if one is None else one.shape[0] for one in pixels]
    if cosine.ndim > 1 and cosine.shape[0] == sum(rows):
        return [number * cosine[0].numel() for number in rows]
    return None


def _counts(items: Sequence[Encoded], cosines: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return which tokens count, bool (tokens of the batch,): those that no mask of the inputs calls padding."""
    masks = [mask for item in items if (mask := item.tensors.get(_MASK)) is not None]
    if len(cosines) == 1 and masks and len({mask.shape[1:] for mask in masks}) == 1:
        mask = torch.cat(masks).cpu().bool()
        if mask.shape == cosines[0].shape:
            return mask.flatten()
    return torch.ones(sum(one.numel() for one in cosines), dtype=torch.bool)
