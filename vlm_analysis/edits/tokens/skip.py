"""Let vision tokens skip layers of a model: what runs around each layer, and DeepStack features that are left out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch

from vlm_analysis.edits.around import put_around
from vlm_analysis.edits.tokens.masked import absent_masked, frozen_masked
from vlm_analysis.edits.tokens.queries import Queries
from vlm_analysis.edits.tokens.rows import Rows
from vlm_analysis.edits.tokens.sliced import absent_sliced, frozen_sliced
from vlm_analysis.errors import EditError

_FEATURES = "deepstack_visual_embeds"  # what the decoder of Qwen3-VL and its kin adds after its first layers


def skip_layers(
    model: Any, path: str, absent: Collection[int], frozen: Collection[int], *, sliced: bool, deepstack: bool
) -> None:
    """Let vision tokens skip layers of a model, which is changed.

    Args:
        model: a model of transformers.
        path: of the list of its decoder layers, as "model.language_model.layers".
        absent, frozen: places in this list (see `Vision`).
        sliced: whether vision tokens leave the layer, or are hidden by its mask.
        deepstack: whether DeepStack features are added after these layers too.

    Raises:
        EditError: DeepStack features are to be left out, and this model adds none or adds them elsewhere.
    """
    rows, layers = Rows(), model.get_submodule(path)
    if not deepstack:
        _without_deepstack(model.get_submodule(path.rpartition(".")[0]), {*absent, *frozen})
    model.register_forward_pre_hook(rows.note, with_kwargs=True)
    model.register_forward_hook(rows.forget, always_call=True)
    for place in absent:
        put_around(layers[place], _with(absent_sliced if sliced else absent_masked, rows))
    for place in frozen:
        run = functools.partial(frozen_sliced, queries=Queries(layers[place])) if sliced else frozen_masked
        put_around(layers[place], _with(run, rows))


def _with(run: Callable[..., Any], rows: Rows) -> Callable[..., Any]:
    return lambda forward, given: run(forward, given, rows)


def _without_deepstack(decoder: Any, silent: Collection[int]) -> None:
    """Let the decoder add no vision features after the layers at these places."""
    if _FEATURES not in inspect.signature(type(decoder).forward).parameters:
        raise EditError(
            f"DeepStack features cannot be left out: expected a decoder that takes them, got {type(decoder).__name__}. Leave "
            "`deepstack` as it is."
        )

    def leave_out(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        features = kwargs.get(_FEATURES)
        if features is None:
            return None
        kept = [torch.zeros_like(one) if index in silent else one for index, one in enumerate(features)]
        return args, kwargs | {_FEATURES: kept}

    decoder.register_forward_pre_hook(leave_out, with_kwargs=True)
