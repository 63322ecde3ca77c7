"""Let vision tokens skip layers of a checkpoint that plain transformers has loaded: the end of an export's `strata_vision.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlm_analysis.edits.tokens.skip import skip_layers
from vlm_analysis.errors import EditError
from vlm_analysis.models.vision import VISION_FILE

_APPLIED = "strata_vision_applied"  # an attribute of the model


def load(folder: str | Path, **options: Any) -> Any:
    """Return the model of a folder, with vision tokens that skip layers; `options` are those of `from_pretrained`.

    Raises:
        EditError: as `apply_vision`.
    """
    from transformers import AutoModelForImageTextToText

    vision_settings_in(folder)  # before weights are read
    return apply_vision(AutoModelForImageTextToText.from_pretrained(folder, **options).eval(), folder)


def apply_vision(model: Any, folder: str | Path) -> Any:
    """Let vision tokens skip the layers that `strata-vision.json` of the folder names, and return the model, which is changed.

    The model is then called with `input_ids`, by which vision tokens are told from text.

    Raises:
        EditError: the folder has no such file, as an ordinary checkpoint, or one of another kind; the model is another one; or it was
            applied already.
    """
    told = vision_settings_in(folder)
    if hasattr(model, _APPLIED):
        raise EditError("Vision tokens skip layers of this model already: expected one as it was loaded. Load it anew.")
    attention = model.config.get_text_config(decoder=True)._attn_implementation
    if attention not in ("eager", "sdpa"):
        raise EditError(
            f"Vision tokens cannot skip layers: expected attention by eager or sdpa, got {attention}. Load the model with "
            "attn_implementation='sdpa'."
        )
    try:
        n_layers = len(model.get_submodule(told["layers"]))
    except AttributeError:
        n_layers = 0
    expected, got = (told["class"], told["n_layers"]), (type(model).__name__, n_layers)
    if expected != got:
        raise EditError(
            f"Vision tokens cannot skip layers: expected {expected[0]} of {expected[1]} layers, got {got[0]} of {got[1]}. Load the model "
            "of this folder."
        )
    sliced = told["form"] == "sliced"
    skip_layers(model, told["layers"], told["absent"], told["frozen"], sliced=sliced, deepstack=told["deepstack"])
    setattr(model, _APPLIED, True)
    return model


def vision_settings_in(folder: str | Path) -> dict[str, Any]:
    """Return the content of the folder's `strata-vision.json`.

    Raises:
        EditError: there is none, or it is of another kind.
    """
    path = Path(folder) / VISION_FILE
    if not path.is_file():
        raise EditError(
            f"Vision tokens skip no layers here: expected {VISION_FILE} in {folder}, as an export of such an edit has it, got a folder "
            "without it. Load an ordinary checkpoint by transformers alone, or name the exported folder."
        )
    told = json.loads(path.read_text("utf-8"))
    if (told.get("kind"), told.get("schema_version")) != ("strata-vision", 1):
        raise EditError(f"{VISION_FILE} cannot be used: expected version 1 of its kind, got another. Export again.")
    settings: dict[str, Any] = told
    return settings
