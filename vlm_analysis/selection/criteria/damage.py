"""Measured damage: the effect of leaving out one layer at a time on the answers, read from Evaluations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.criteria.draws import Sample, Units
from vlm_analysis.words import brief, counted, prompts_in

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation

ADVICE = "Measure the damage of each layer alone, on one model and one prompt set."


@dataclass(frozen=True, eq=False)
class Damage:
    """The damage of each layer alone, prompt by prompt.

    Attributes:
        prompts: fingerprint of the prompt set the damage was measured on.
        ids, domains: one entry a prompt that every evaluation has.
        values: by metric (`kl_to_dense`, `answer_nll`), (n_prompts, n_layers) float64 in nats; NaN where the layer was not left
            out or its number was not finite. `answer_nll` is the increase over the dense model where `over_dense`.
        measured: (n_layers,) bool, layers that were left out.
        over_dense: whether a dense evaluation was among them; without one `answer_nll` is as it stands, which ranks the same.
        groups: of each prompt the name of its group; () where each is alone in its group.
        set_aside: the prompts that the model refused, by id, each with the reason.
    """

    prompts: str
    ids: tuple[str, ...]
    domains: tuple[str, ...]
    values: dict[str, np.ndarray]
    measured: np.ndarray
    over_dense: bool
    groups: tuple[str, ...] = ()
    set_aside: dict[str, str] = field(default_factory=dict, kw_only=True)

    def __repr__(self) -> str:
        measured = f"{int(self.measured.sum())} of {counted(len(self.measured), 'layer')} measured"
        return brief(self, measured, prompts_in(self.domains))

    def mean(self, metric: str, target: str | None = None, sample: Sample | None = None) -> np.ndarray:
        """Return the (n_layers,), or (n_draws, n_layers), mean over the target's prompts with equal weight (None: all).

        NaN for layers that were not left out, and for those with a number that is not finite, which may be the largest damage.

        Raises:
            MaskError: the measured prompts do not have this domain.
        """
        if target is not None and target not in self.domains:
            names = list(dict.fromkeys(self.domains))
            raise MaskError(
                f"The damage was not measured on domain {target!r}: expected one of {names}. Measure it there."
            )
        rows = [row for row, domain in enumerate(self.domains) if target in (None, domain)]
        labels = [(name, values.tobytes()) for name, values in zip(self.ids, self.values[metric], strict=True)]
        units = Units.of(self.domains, self.groups, labels).only(rows)
        return (sample or Sample()).mean(self.values[metric][rows], self.measured, units)

    def n_prompts(self, target: str | None = None) -> int:
        """Return how many prompts of the target the damage was measured on (None: all)."""
        return sum(target in (None, domain) for domain in self.domains)


def read_damage(evaluations: Sequence[Evaluation], model: ModelInfo) -> Damage:
    """Return the damage read from leave-one-out evaluations; a dense one may be among them, and layers may be missing.

    Raises:
        MaskError: there is no leave-one-out evaluation, or one is of another model or prompt set, repeats a layer, or drops several.
    """
    left_out = [evaluation for evaluation in evaluations if not evaluation.is_dense]
    if not left_out:
        raise MaskError(
            f"There is no measured damage: expected evaluations that leave out one layer, got none. {ADVICE}"
        )
    _refuse_foreign(evaluations, model)
    set_aside = {name: reason for one in evaluations for name, reason in one.set_aside.items()}
    first = left_out[0].by_prompt
    first = first[~first["id"].isin(set_aside.keys())]
    ids = tuple(str(name) for name in first["id"])
    if not ids:
        raise MaskError(f"The damage cannot be told: expected a prompt that every evaluation has, got none. {ADVICE}")
    dense = next((evaluation for evaluation in evaluations if evaluation.is_dense), None)
    values = {metric: np.full((len(ids), model.n_layers), np.nan) for metric in ("kl_to_dense", "answer_nll")}
    measured = np.zeros(model.n_layers, bool)
    for evaluation in left_out:
        layer = evaluation.edit.dropped[0]
        if measured[layer]:
            raise MaskError(
                f"The damage of layer {layer} is given twice: expected one evaluation per layer. Pass only one of them."
            )
        measured[layer] = True
        for metric, table in values.items():
            table[:, layer] = _column(evaluation, metric, ids, set_aside)
    if dense is not None:
        values["answer_nll"] -= _column(dense, "answer_nll", ids, set_aside)[:, None]
    domains, over_dense = tuple(map(str, first["domain"])), dense is not None
    shared = left_out[0].shared_groups
    groups = tuple(shared[row] for row in first.index) if shared else ()
    return Damage(left_out[0].prompts, ids, domains, values, measured, over_dense, groups, set_aside=set_aside)


def _refuse_foreign(evaluations: Sequence[Evaluation], model: ModelInfo) -> None:
    for evaluation in evaluations:
        edit, of = evaluation.edit, evaluation.model
        if edit.n_layers != model.n_layers or of.fingerprint != model.fingerprint:
            raise MaskError(
                f"The damage is of another model: expected {model.name} with {model.n_layers} layers, got {of.name} with "
                f"{edit.n_layers} layers. {ADVICE}"
            )
        if not edit.is_dense and not (edit.is_mask and edit.budget == 1):
            raise MaskError(
                f"The damage of one layer is needed: expected masks of one layer, got an edit that {edit.words()}. {ADVICE}"
            )
        if evaluation.prompts != evaluations[0].prompts:
            raise MaskError(
                f"The damage is of different prompt sets: expected one set for all layers, got several. {ADVICE}"
            )


def _column(evaluation: Evaluation, metric: str, ids: tuple[str, ...], set_aside: Collection[str]) -> np.ndarray:
    """Return a metric of each prompt in the order of `ids`, float64; values that are not finite become NaN."""
    frame = evaluation.by_prompt[~evaluation.by_prompt["id"].isin(set_aside)]
    row_of = {str(name): row for row, name in enumerate(frame["id"])}
    if len(row_of) != len(frame) or row_of.keys() != set(ids):
        raise MaskError(
            f"The damage is of different prompts: expected the same ids in every evaluation, got others. {ADVICE}"
        )
    values = frame[metric].to_numpy(dtype=np.float64)[[row_of[name] for name in ids]]
    return np.where(np.isfinite(values), values, np.nan)
