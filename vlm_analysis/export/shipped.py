"""What an export ships for vision tokens that skip layers: `strata-vision.json`, and `strata_vision.py`, which applies it.

The module is Strata's own code for it in one file, which imports torch and transformers alone, so that an exported model runs as the
evaluated one, and as fast.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.errors import ExportError
from vlm_analysis.models.layers import find_decoder_path
from vlm_analysis.models.vision import VISION_FILE

PACKAGE = Path(__file__).resolve().parents[1]
MODULE_FILE = "strata_vision.py"
PARTS = (
    "edits/around.py",
    "models/vision.py",
    "edits/tokens/rows.py",
    "edits/tokens/masked.py",
    "edits/tokens/queries.py",
    "edits/tokens/sliced.py",
    "edits/tokens/skip.py",
    "edits/tokens/alone.py",
)
_HEAD = '''"""Vision tokens skip layers of the checkpoint in this folder, as `strata-vision.json` says. It needs torch and transformers.

    import sys

    sys.path.insert(0, "FOLDER")  # this one
    from strata_vision import apply_vision, load

    model = load("FOLDER")  # or apply_vision(model, "FOLDER"), of a model that you have loaded

Without it the checkpoint loads too, and vision tokens run through all layers. Written by Strata, Apache-2.0.
"""
'''
_ERROR = '''class EditError(ValueError):
    """Vision tokens cannot skip layers of this model, or not as it is called; the message says why."""
'''


def vision_settings(edit: Edit, view: Any) -> dict[str, Any] | None:
    """Return the content of `strata-vision.json` for the edited model that is saved; None where vision tokens skip no layer.

    Layers are counted as they stand in the checkpoint, without those that are gone.
    """
    vision = next((change for change in edit.changes if isinstance(change, Vision)), None)
    if vision is None:
        return None
    place = {layer: index for index, (layer, _) in enumerate(edit.steps.layers)}
    path, layers = find_decoder_path(view)
    return {
        "schema_version": 1,
        "kind": "strata-vision",
        "class": type(view).__name__,
        "layers": path,
        "n_layers": len(layers),
        "absent": [place[layer] for layer in vision.absent],
        "frozen": [place[layer] for layer in vision.frozen],
        "form": vision.form,
        "deepstack": vision.deepstack,
    }


def write_shipped(edit: Edit, view: Any, folder: Path) -> bool:
    """Write both files into the folder of a checkpoint; returns whether vision tokens skip layers at all."""
    settings = vision_settings(edit, view)
    if settings is None:
        return False
    (folder / VISION_FILE).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    (folder / MODULE_FILE).write_text(module_text(), "utf-8")
    return True


def module_text() -> str:
    """Return the text of `strata_vision.py`.

    Raises:
        ExportError: Strata's own code cannot be read.
    """
    try:
        texts = [(PACKAGE / part).read_text("utf-8") for part in PARTS]
    except OSError as error:
        raise ExportError(
            f"{MODULE_FILE} cannot be written: expected Strata's own code, got {error}. Install it again."
        ) from error
    imports: dict[str, set[str]] = {}
    bodies = [_body(text, imports) for text in texts]
    lines = [
        f"from {name} import {', '.join(sorted(taken))}" if taken else f"import {name}"
        for name, taken in imports.items()
    ]
    future = "from __future__ import annotations\n"
    return "\n".join([_HEAD, future, *sorted(lines), "", "", _ERROR, "", "\n\n".join(bodies)])


def _body(text: str, imports: dict[str, set[str]]) -> str:
    """Return a module's text without its docstring and imports; by module, the names that are not Strata's are added to `imports`."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            imports |= {alias.name: set() for alias in node.names}
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module
            and not node.module.startswith(("vlm_analysis", "__future__"))
        ):
            imports.setdefault(node.module, set()).update(alias.name for alias in node.names)
        if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.Expr) and node.lineno == 1):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (1 + (node.end_lineno or node.lineno) - node.lineno)
    return "\n".join(lines).strip() + "\n"
