"""Which tool wrote a mask: decided by the fields of a file, never by a guess that can be wrong in silence."""

from __future__ import annotations

from pathlib import PurePath

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.foreign import lists, llm_drop, puzzletron, skipping, torch_pruning
from vlm_analysis.edits.foreign.masks import refuse
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.saved import parsed

MOST_BYTES = 1 << 20
READERS = (puzzletron.of_json, llm_drop.of_json, skipping.of_json, lists.of_json)


def foreign_mask(text: str, name: str, n_layers: int | None, model: ModelInfo | None = None) -> Edit | None:
    """Return the mask of a file that another tool wrote; None where it is of no known shape, or Strata's own.

    Args:
        text: of the file.
        name: of the file; one that ends in `.json` is read as JSON only.
        n_layers: decoder layers of the unpruned model, for files that do not say it; None where it is not known.
        model: that model, for histories, which do not say how many neurons there are; its number of layers counts in place of `n_layers`.

    Raises:
        MaskError: it is of a known shape, but says what no mask says, or numbers that make none.
        NoLayerCountError: it does not say how many layers the model has, and `n_layers` is None.
    """
    if len(text) > MOST_BYTES:
        return None
    n_layers = n_layers if model is None else model.n_layers
    try:
        content = parsed(text)
    except (ValueError, RecursionError):
        suffix = PurePath(name).suffix.lower()
        mask = None
        if suffix != ".json":
            mask = skipping.of_text(text, n_layers, name) or lists.of_text(text, n_layers, name)
        if mask is None and suffix == ".txt":
            refuse(
                name, f'layer numbers ("3,4") or one of {" and ".join(lists.FLAGS)}', text[:60], "Write the numbers."
            )
        return mask
    if (edit := torch_pruning.of_json(content, model, name)) is not None:
        return edit
    found = (read(content, n_layers, name) for read in READERS)
    return next((mask for mask in found if mask is not None), None)
