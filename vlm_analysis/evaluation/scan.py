"""What a scan of vision tokens found: the harm of every late entry, early exit and frozen layer, prompt by prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.vision import MASKED
from vlm_analysis.edits.skipping import early_exit, freeze, late_entry
from vlm_analysis.errors import EvaluationError, short
from vlm_analysis.evaluation.flops import Shape, prefill_flops
from vlm_analysis.evaluation.scores import NUMBERS
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.words import brief, prompts_in

DENSE, LATE_ENTRY, EARLY_EXIT, FROZEN = "dense", "late entry", "early exit", "frozen"
ONE_WAY = ("kl_from_dense", "first_kl_to_dense", "first_kl_from_dense")
"""What a scan measures besides the scores of an evaluation."""
NUMBERS_OF_SCAN = (*NUMBERS, *ONE_WAY)
"""The numbers of an answer's score in a scan, besides whether it is matched exactly."""
MEANS = ("exact_match", "answer_nll", "kl_to_dense", *ONE_WAY)


@dataclass(frozen=True, eq=False)
class VisionScan:
    """The scores of edits in which vision tokens skip layers, one way at a time.

    Attributes:
        model: the dense model.
        prompts: fingerprint of the prompt set.
        by_prompt: one row for each way, layer and prompt. `way` is "dense", "late entry", "early exit" or "frozen"; `layer` is where vision
            tokens enter, leave or are frozen, -1 for the dense model. Scores are `exact_match`, `answer_nll`, and in nats `kl_to_dense` =
            KL(dense ‖ edited) and `kl_from_dense` = KL(edited ‖ dense), means over the answer; with `first_` they are those of the
            answer's first token, which the last token of the prompt predicts.
        form, deepstack: of the edits (see `Vision`).
        n_vision, n_text: vision tokens and all other tokens of a prompt, means over prompts.
        attention_size: heads times their size, of a layer's queries.
        kv_parameters: parameters of a layer that make keys and values.
        set_aside: the prompts that the model refused, by id, each with the reason.
    """

    model: ModelInfo
    prompts: str
    by_prompt: pd.DataFrame
    form: str = MASKED
    deepstack: bool = True
    n_vision: float = 0.0
    n_text: float = 0.0
    attention_size: int = 0
    kv_parameters: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        n_edits = len(self.by_prompt[["way", "layer"]].drop_duplicates())
        dense = self.by_prompt[self.by_prompt["way"] == DENSE]
        return brief(self, self.model.name, f"{n_edits} edits", self.form, prompts_in(dense["domain"]))

    def table(self, domain: str | None = None) -> pd.DataFrame:
        """Return the means over a domain's prompts with equal weight (None: all), by (way, layer); NaN in any prompt stays NaN.

        Raises:
            EvaluationError: no prompt of this domain was scanned.
        """
        rows = self.by_prompt if domain is None else self.by_prompt[self.by_prompt["domain"] == domain]
        if rows.empty:
            names = list(self.by_prompt["domain"].unique())
            raise EvaluationError(
                f"The scan has no domain {short(repr(domain), 80)}: expected one of {names}. Scan its prompts too."
            )
        columns = rows.groupby(["way", "layer"], sort=False)[list(MEANS)]
        return columns.agg(lambda values: values.astype(float).mean(skipna=False))

    def edit(self, way: str, layer: int) -> Edit:
        """Return the Edit of a row.

        Raises:
            EvaluationError: an unknown way.
        """
        return edit_of_way(self.model.n_layers, way, layer, form=self.form, deepstack=self.deepstack)

    @property
    def shape(self) -> Shape:
        """Return the shape of the mean prompt, for `flops.prefill_flops`."""
        return Shape(self.n_vision, self.n_text, self.attention_size, self.kv_parameters)

    def flops_share(self, edit: Edit) -> float:
        """Return the share of the dense model's FLOPs in the decoder layers that a prefill of the mean prompt takes, sliced.

        Two FLOPs for each parameter of a layer and token that runs through it, and four for each pair of query and key and number of
        a query (see `flops.prefill_flops`). Vision tower and head are not in it.
        """
        dense, edited = prefill_flops(self.model, edit, self.shape)
        return edited / dense


def ways_of(n_layers: int) -> list[tuple[str, int]]:
    """Return every late entry, early exit and single frozen layer as (way, layer); entering at `n_layers` is leaving at 0."""
    return [
        *((LATE_ENTRY, layer) for layer in range(1, n_layers + 1)),
        *((EARLY_EXIT, layer) for layer in range(n_layers)),
        *((FROZEN, layer) for layer in range(n_layers)),
    ]


def edit_of_way(n_layers: int, way: str, layer: int, *, form: str = MASKED, deepstack: bool = True) -> Edit:
    """Return the Edit of a way at a layer.

    Raises:
        EvaluationError: an unknown way.
    """
    if way == DENSE:
        return Edit(n_layers)
    if way == FROZEN:
        return freeze(n_layers, [layer], form=form, deepstack=deepstack)
    if way not in (LATE_ENTRY, EARLY_EXIT):
        ways = ", ".join((DENSE, LATE_ENTRY, EARLY_EXIT, FROZEN))
        raise EvaluationError(
            f"Unknown way to skip layers: expected one of {ways}, got {short(repr(way), 80)}. Name one of them."
        )
    make = late_entry if way == LATE_ENTRY else early_exit
    return make(n_layers, layer, form=form, deepstack=deepstack)
