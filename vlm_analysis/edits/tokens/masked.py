"""Let vision tokens skip a layer, masked: all rows run, and the mask hides the keys of vision tokens from text.

This is the reference: it asks of a layer no more than that it takes a mask of queries and keys. `sliced` is the quick form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import StaticLayer

from vlm_analysis.edits.tokens.rows import Rows
from vlm_analysis.errors import EditError


def absent_masked(forward: Callable[..., Any], given: dict[str, Any], rows: Rows) -> Any:
    """Run a layer on all rows, in which text does not see vision tokens; their states pass unchanged."""
    states = given["hidden_states"]
    keys = rows.keys(given.get("past_key_values"), states.device)
    if keys is not None:
        given = given | {"attention_mask": _hiding(mask_of(given, rows), rows.of(states), keys)}
    return frozen_masked(forward, given, rows)


def frozen_masked(forward: Callable[..., Any], given: dict[str, Any], rows: Rows) -> Any:
    """Run a layer on all rows; the states of vision tokens pass unchanged."""
    states = given["hidden_states"]
    vision, output = rows.of(states), forward(**given)
    if not rows.has_vision:
        return output
    new = output[0] if isinstance(output, tuple) else output
    kept = torch.where(vision.to(new.device)[..., None], states.to(new.device), new)
    return (kept, *output[1:]) if isinstance(output, tuple) else kept


def _hiding(mask: torch.Tensor, vision: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return a layer's mask with vision keys hidden from text rows."""
    visible = mask.shape[-1]  # a window shows the last keys, a cache of a fixed size has room behind them
    keys = torch.nn.functional.pad(keys[:, -visible:], (0, max(0, visible - keys.shape[1])))
    hide = (~vision)[:, None, :, None] & keys[:, None, None, :]
    return mask & ~hide if mask.dtype == torch.bool else mask.masked_fill(hide, torch.finfo(mask.dtype).min)


def mask_of(given: dict[str, Any], rows: Rows) -> torch.Tensor:
    """Return the mask of a layer's queries and keys (batch, heads, n_rows, n_keys); where it is given none, the causal one, bool.

    Raises:
        EditError: it is given one of another form.
    """
    mask, states = given.get("attention_mask"), given["hidden_states"]
    if mask is None:
        n_rows, n_keys = states.shape[1], rows.n_keys
        layers = getattr(given.get("past_key_values"), "layers", ())
        room = max((one.max_cache_len for one in layers if isinstance(one, StaticLayer)), default=n_keys) - n_keys
        causal = torch.ones(n_rows, n_keys, dtype=torch.bool, device=states.device).tril(n_keys - n_rows)
        return torch.nn.functional.pad(causal, (0, max(0, room)))[None, None]
    if not torch.is_tensor(mask) or mask.dim() != 4:
        got = tuple(mask.shape) if torch.is_tensor(mask) else type(mask).__name__
        raise EditError(
            f"Vision tokens cannot be hidden in a layer: expected a mask of queries and keys (4 dimensions), got {got}. Load the model "
            "with attn_implementation='sdpa', or leave it as it is."
        )
    return mask
