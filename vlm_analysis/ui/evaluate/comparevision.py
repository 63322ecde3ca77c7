"""The Evaluate page's question to many masks: whether edits in which vision tokens skip layers compete with them."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.edits.kinds.vision import SLICED
from vlm_analysis.edits.skipping import in_short
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.scan import ways_of
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.vision import LEAST_KEPT, scan_front
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted
from vlm_analysis.workbench.comparisons import MOST_VISION, Question
from vlm_analysis.workbench.scans import find_scan
from vlm_analysis.workbench.workspace import Item

KEY = "compare_vision"
SHARED = 2  # a scan runs about one in so many of its layers (see `python -m benchmarks.vision`)


def ask_vision(info: ModelInfo, choose: Item) -> int:
    """Draw how many edits of a scan compete, and which they are where the prompts were scanned; 0 where no layer can be skipped."""
    if len(info.vision_locked) == info.n_layers:
        return 0
    number = st.number_input(
        "Edits in which vision tokens skip layers",
        0,
        MOST_VISION,
        0,
        key=KEY,
        persist_state="session",
        help="So many edits of a scan of the prompts that masks are chosen on compete too, alone and beside every mask that is no random "
        "draw. They save time, and no parameters: time the front to see it.",
    )
    if number:
        _say_which(info, choose, number)
    return int(number)


def _say_which(info: ModelInfo, choose: Item, number: int) -> None:
    """Say which edits are taken, or that a scan has to tell."""
    item = find_scan(workspace(), info.fingerprint, choose.prompts, form=SLICED)
    how = f"from the front of KL over FLOPs, of those that keep {LEAST_KEPT:.0%} of the answers"
    if item is None:
        st.caption(f"They are taken {how}. {escaped(choose.name)} is scanned first.")
        return
    try:
        edits = scan_front(opened(item), number)
    except StrataError as error:
        st.caption(escaped(error))
        return
    named = "; ".join(f"{in_short(edit)} ({opened(item).flops_share(edit):.0%} of the FLOPs)" for edit in edits)
    fewer = f" The scan has no more than {counted(len(edits), 'such edit')}." if len(edits) < number else ""
    st.caption(f"Taken {how}: {escaped(named)}.{fewer}")


def with_beside(masks: int, question: Question) -> int:
    """Return how many masks there are at most, with those of vision tokens alone and beside the others."""
    return masks + question.vision * (1 + masks)


def scan_passes(info: ModelInfo, choose: Item) -> int:
    """Return about how many passes a scan of the prompts takes; 0 where they were scanned."""
    if find_scan(workspace(), info.fingerprint, choose.prompts, form=SLICED) is not None:
        return 0
    n_ways = len(ways_of(info.n_layers)) - 3 * len(info.vision_locked)
    return n_ways * int(choose.details.get("n", 0)) // SHARED
