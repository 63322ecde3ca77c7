"""Leave layers out of the vision encoder of a view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlm_analysis.edits.view import View
from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.tower import find_tower, fit_tower


def drop_from_tower(view: View, n_layers: int, kept: Sequence[int]) -> None:
    """Leave layers out of the vision encoder of a view, which keeps sharing the weights of the others, and fit its configurations.

    Args:
        view: of the model.
        n_layers: of its vision encoder.
        kept: those that stay, ascending.

    Raises:
        EditError: the model has no vision encoder of so many layers.
    """
    model: Any = view.model
    tower = find_tower(model, find_decoder_layers(model))
    if isinstance(tower, str) or len(tower.layers) != n_layers:
        got = tower if isinstance(tower, str) else f"{len(tower.layers)}"
        raise EditError(
            f"The edit does not fit the model: expected a vision encoder of {n_layers} layers, got {got}. Take an edit of this "
            "model."
        )
    configs = [config for module in model.modules() if hasattr(config := vars(module).get("config"), "get_text_config")]
    of_decoder = {id(module) for module in find_decoder_layers(model).modules()}
    for name, (before, after) in fit_tower(configs, tower, kept).items():
        for module in model.modules():  # some keep a setting of their own
            if id(module) not in of_decoder and name in vars(module) and vars(module)[name] == before:
                vars(module)[name] = after
    view.leave(tower.path, kept)
