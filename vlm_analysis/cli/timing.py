"""A comparison whose front was timed, as a Result: retention over measured time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vlm_analysis.cli.output import Result, rows_of
from vlm_analysis.cli.results import grid, of_comparison
from vlm_analysis.evaluation.cost import Cost
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.compared.findings import mask_table, on_front
from vlm_analysis.selection.compared.timed import time_left
from vlm_analysis.workbench.workspace import Item


def of_timed(comparison: Comparison, item: Item | None, costs: Sequence[Cost]) -> Result:
    """Return the Result of a comparison with the masks that were timed: what each keeps, and its time over the dense model's.

    `on_front` is over the retention of the worst domain and the time of a prefill.
    """
    made, table = of_comparison(comparison, item), mask_table(comparison)
    for phase in ("prefill", "decode"):
        table[f"{phase}_left"] = time_left(comparison, costs, phase)
    timed = table[table["prefill_left"].notna()].sort_values("prefill_left")
    timed["on_front"] = on_front(np.column_stack([-timed["worst"], timed["prefill_left"]]))
    shown = timed[["dropped", "worst", "prefill_left", "decode_left", "on_front"]]
    words = "Measured time over that of the dense model, and what is kept of the worst domain:"
    return replace(made, text=f"{made.text}\n\n{words}\n{grid(shown)}", data={**made.data, "timed": rows_of(timed)})
