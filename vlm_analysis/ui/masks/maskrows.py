"""The rows of the table of masks: the one in the editor, candidates and saved ones, with what was measured of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.evaluation.evaluation import Evaluation, retention
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.ui.common.held import is_of
from vlm_analysis.ui.common.text import holds
from vlm_analysis.workbench.details import STARRED, edit_key
from vlm_analysis.workbench.workspace import Item

EDITOR_ROW, CANDIDATE = "editor", "candidate:"
ORDERS = {
    "starred, then newest": lambda row: (not row.starred, -row.place),
    "newest": lambda row: -row.place,
    "name": lambda row: row.name.casefold(),
    "fewest layers dropped": lambda row: (row.budget, -row.place),
    "most layers dropped": lambda row: (-row.budget, -row.place),
}
MOST_DOMAINS = 3  # columns of domains that are shown unless others are chosen
_MOST_WORDS = 60


@dataclass(frozen=True, eq=False)
class MaskRow:
    """One mask of the table.

    Attributes:
        id: of the saved item; else `EDITOR_ROW`, or `CANDIDATE` and its name.
        made: what it does; None for a saved one that only drops layers, of which the sidecar tells all, and of one that does more
            until its file is read.
        item: the saved item.
        place: how new a saved one is; higher is newer.
        chosen_on: fingerprints of the prompts that it was chosen on, as far as its file tells.
    """

    id: str
    name: str
    made: Edit | None
    origin: str = ""
    item: Item | None = None
    place: int = 0
    chosen_on: frozenset[str] = frozenset()

    @cached_property
    def mask(self) -> Edit:
        """Return what it does; of a saved one without its file's name, notes and provenance. Made when it is looked at."""
        assert self.made is not None or (self.item is not None and self.item.is_mask)
        return self.made or PruneMask(self._details["n_layers"], self._details["dropped"])

    @property
    def key(self) -> str | None:
        """Return the key of what it does."""
        return edit_key(self._details) if self.made is None else self.made.key

    @property
    def budget(self) -> int:
        """Return the number of dropped layers."""
        return len(self._details["dropped"]) if self.made is None else self.made.budget

    @property
    def _details(self) -> dict[str, Any]:
        return {} if self.item is None else self.item.details

    @property
    def starred(self) -> bool:
        return self.item is not None and self.item.details.get(STARRED) is True

    @property
    def notes(self) -> str:
        return "" if self.item is None else str(self.item.details.get("notes", ""))


def saved_rows(items: Sequence[Item]) -> list[MaskRow]:
    """Return a row for each saved mask, newest first; `items` are newest first too. No file is read."""
    return [
        MaskRow(item.id, item.name, None, item=item, place=len(items) - number) for number, item in enumerate(items)
    ]


def changed_layers(edit: Edit) -> list[int]:
    """Return the layers that an edit keeps and changes."""
    return [layer for layer, variant in edit.steps.layers if variant]


def made_rows(edited: Edit | None, candidates: Mapping[str, Edit], saved: Sequence[MaskRow] = ()) -> list[MaskRow]:
    """Return a row for the mask in the editor, where it does anything and is none of the saved ones, then one for each candidate."""
    rows = [
        MaskRow(CANDIDATE + name, name, mask, _candidate_words(mask), chosen_on=mask.chosen_on)
        for name, mask in candidates.items()
    ]
    if edited is None or edited.is_dense or any(row.key == edited.key for row in saved):
        return rows
    named = f": {edited.name}" if edited.name else ""
    return [
        MaskRow(EDITOR_ROW, f"in the editor{named}", edited, origin_words(edited), chosen_on=edited.chosen_on),
        *rows,
    ]


def _candidate_words(mask: Edit) -> str:
    """Return by which strategy a candidate was made; its name tells the criterion."""
    source = source_words({name: mask.provenance.get(name) for name in ("strategy", "width")})
    return f"candidate: {source}" if source else "candidate"


def found(rows: Sequence[MaskRow], text: str) -> list[MaskRow]:
    """Return the rows whose name or notes hold the text."""
    return [row for row in rows if holds(text, row.name, row.notes)]


def origin_words(mask: Edit) -> str:
    """Return where a mask comes from, as its file tells: "Block influence, First k", "by hand, from Greedy", "a file of mergekit"."""
    told = mask.provenance
    started = told.get("started_from")
    if not isinstance(started, dict):
        return source_words(told) or "by hand"
    source = source_words(started)
    if source and is_of(started, mask):
        return source
    return f"by hand, from {source}" if source else "by hand"


def source_words(told: Mapping[str, Any]) -> str:
    """Return what made a mask: criterion and strategy, or the tool whose file it was; "" where it is not told."""
    titles = [
        table[told[name]].title
        for name, table in (("criterion", CRITERIA), ("strategy", STRATEGIES))
        if isinstance(told.get(name), str) and told[name] in table
    ]
    if titles:
        return ", ".join(titles)
    width = told.get("width")
    if isinstance(width, dict) and isinstance(width.get("mode"), str):
        return f"Width, {width['mode'][:_MOST_WORDS]}"
    tool = told.get("opened_from")
    if isinstance(tool, str):
        return f"a file of {tool[:_MOST_WORDS]}"
    started = told.get("started_from")
    return source_words(started) if isinstance(started, dict) and started is not told else ""


@dataclass(frozen=True)
class Numbers:
    """What a mask keeps on the prompts in hand: retention by domain, the mean KL to dense in nats."""

    kept: Mapping[str, float]
    kl_to_dense: float

    @property
    def worst(self) -> float:
        """Return the least retention that is defined; NaN where none is."""
        there = [value for value in self.kept.values() if not np.isnan(value)]
        return min(there, default=np.nan)

    @property
    def mean(self) -> float:
        """Return the mean over domains with equal weight, of those where it is defined."""
        there = [value for value in self.kept.values() if not np.isnan(value)]
        return float(np.mean(there)) if there else np.nan


def numbers_of(evaluation: Evaluation, dense: Evaluation, metric: str) -> Numbers:
    """Return the numbers of an evaluated mask, of the score `metric`."""
    kept = {str(name): float(value) for name, value in retention(evaluation, dense, metric).items()}
    return Numbers(kept, float(evaluation.by_prompt["kl_to_dense"].mean()))


def table_frame(
    rows: Sequence[MaskRow],
    numbers: Mapping[str, Numbers],
    *,
    model: ModelInfo,
    domains: Sequence[str],
    ticked: Collection[str] = (),
) -> pd.DataFrame:
    """Return the table as it is drawn, indexed by the rows' ids; shares are in percent.

    Args:
        numbers: by the key of an edit; masks that lack them were not evaluated on the prompts in hand.
        domains: whose retention has a column.
    """
    from vlm_analysis.figures.ministrips import mini_strip

    counted = len(model.layer_parameters) == model.n_layers and model.n_parameters
    none = Numbers({}, np.nan)
    lines = []
    for row in rows:
        told = numbers.get(row.mask.key, none)
        lines.append(
            {
                "ticked": row.id in ticked,
                "star": "★" if row.starred else "☆",
                "strip": mini_strip(row.mask.dropped, model.n_layers, changed_layers(row.mask)),
                "name": row.name,
                "load": "Load",
                "origin": row.origin,
                "budget": row.budget,
                "parameters": 100 * row.mask.saved_parameters(model) / model.n_parameters if counted else np.nan,
                "worst": 100 * told.worst,
                "mean": 100 * told.mean,
                **{f"kept:{name}": 100 * told.kept.get(name, np.nan) for name in domains},
                "kl_to_dense": told.kl_to_dense,
                "notes": row.notes,
            }
        )
    columns = ["ticked", "star", "strip", "name", "load", "origin", "budget", "parameters", "worst", "mean"]
    columns += [*(f"kept:{name}" for name in domains), "kl_to_dense", "notes"]
    frame = pd.DataFrame(lines, columns=columns, index=pd.Index([row.id for row in rows], dtype=object))
    return frame if counted else frame.drop(columns="parameters")
