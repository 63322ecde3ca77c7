"""What version 0.1 measured of prompts with marks of pictures, which it took for text: it is measured again, and pages say so."""

from __future__ import annotations

import re
from contextlib import suppress

from vlm_analysis.files import read_bytes
from vlm_analysis.prompts.tables import MAX_TABLE_BYTES
from vlm_analysis.workbench.workspace import Item, Workspace

KNOWN = {"marks": "places"}  # in the details of what is measured since
KINDS = ("recordings", "evaluations", "sweeps", "comparisons")
STALE = (
    "Version 0.1 made this on prompts with marks such as <image> in their questions, which it took for text. Now they say where pictures "
    "stand, so the model is asked otherwise, and these numbers are of the old questions. Make it again."
)
_MARK = re.compile(rb"<image(?: [0-9]{1,4})?>")


def is_stale(shelf: Workspace, item: Item) -> bool:
    """Return whether what an item holds was measured with marks taken for text; False where its prompts are not saved."""
    if item.kind not in KINDS or item.prompts is None or KNOWN.keys() <= item.details.keys():
        return False
    for prompts in shelf.items("prompts"):
        if prompts.prompts == item.prompts:
            with suppress(OSError):
                return _MARK.search(read_bytes(prompts.path / "prompts.jsonl", MAX_TABLE_BYTES)) is not None
    return False
