"""The Result of costs: what edits save in weights and in time. Opens without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vlm_analysis.cli.output import Result, rows_of
from vlm_analysis.cli.results import aside, grid, item_data, kept_line
from vlm_analysis.edits.skipping import in_short
from vlm_analysis.evaluation.cost import PHASES, Cost, cost_frame, save_cost, speedup
from vlm_analysis.export.report import Section
from vlm_analysis.workbench.workspace import Item


def of_costs(costs: Sequence[Cost], items: Sequence[Item | None]) -> Result:
    """Return costs: parameters, bytes, and the speedup of each phase."""
    rows = []
    for cost in costs:
        row: dict[str, Any] = {
            "edit": in_short(cost.edit),
            "parameters": cost.n_parameters[1],
            "parameters_dense": cost.n_parameters[0],
            "bytes": cost.n_bytes[1],
            "bytes_dense": cost.n_bytes[0],
        }
        for name in ("prefill_flops", "encoder_flops", "all_flops", "cache_bytes"):
            pair = getattr(cost, name)
            row |= {} if pair is None else {name: pair[1], f"{name}_dense": pair[0]}
        for phase in PHASES:
            value, low, high = speedup(cost, phase)
            row |= {phase: value, f"{phase}_low": low, f"{phase}_high": high}
        rows.append(row)
    table = pd.DataFrame(rows)
    there = [name for name in ("parameters", "bytes", "all_flops", "cache_bytes") if name in table]
    names = {phase: f"{phase}, × as fast" for phase in PHASES} | {"cache_bytes": "bytes of cache"}
    if "all_flops" in table:
        table["prefill_flops_share"] = table["all_flops"] / table["all_flops_dense"]
        there[there.index("all_flops")] = "prefill_flops_share"
        names["prefill_flops_share"] = "prefill, FLOPs"
    shown = table[["edit", *there, *PHASES]].rename(columns=names)

    def sections() -> list[Section]:
        from vlm_analysis.figures.savings import cost_chart

        return [
            Section("Cost", "Time relative to the dense model.", cost_chart(cost_frame(costs), costs[0].edit.n_layers))
        ]

    set_aside = {name: reason for cost in costs for name, reason in cost.set_aside.items()}
    words = grid(shown, 2) + aside(set_aside) + "".join(kept_line(item) for item in items)
    told = [item_data(item) | row for item, row in zip(items, rows_of(table), strict=True)]
    data = {"costs": told, "set_aside": set_aside}
    forms = {".json": lambda path: save_cost(costs[0], path)} if len(costs) == 1 else {}
    return Result("Cost", words, data, table, sections, forms)
