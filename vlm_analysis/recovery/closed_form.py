"""Repair an edit in closed form: what dropped layers did is fitted by a linear map of the layer before them, and folded into its weight.

One repair for each run of dropped layers, first to last, on states that are measured anew with what is repaired already: the model with the
run tells what is missing without it. Nothing is trained. Memory holds the states of one batch, and sums of (hidden, hidden) in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.change import Change
from vlm_analysis.edits.edit import Edit, check_edit
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.fold import Fold
from vlm_analysis.edits.learnt import Learnt, Tensors
from vlm_analysis.errors import EditError, PromptError
from vlm_analysis.evaluation.run.evaluate import batch_for
from vlm_analysis.evaluation.run.prepared import MAX_ENCODED_BYTES
from vlm_analysis.models.inputs import Encoded, EncodedPrompts, answer_tokens, batches
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.memory import within_memory
from vlm_analysis.models.refused import none_left
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recovery.places import Place, Watch, find_place, is_like
from vlm_analysis.recovery.solving import FITTED, IDENTITY, MLP, Options, Sums, gap_left, solve
from vlm_analysis.words import TOKEN_GROUPS, consecutive, joined, layers as named

REPAIR = "repair"  # the entry in an edit's provenance


def repair(
    loaded: LoadedModel,
    edit: Edit,
    prompts: Sequence[Prompt],
    how: str = "ridge",
    *,
    penalty: float = 1e-3,
    toward: str = IDENTITY,
    k: int = 4,
    sign: int = 1,
    tokens: Collection[str] = FITTED,
    weight: str = MLP,
    on_progress: Progress | None = None,
) -> Edit:
    """Return the edit with a `Fold` for each run of dropped layers, fitted on prompts; nothing is trained, and no parameter is added.

    Where no fold is possible a run stays as it was, with the reason in the provenance; where that holds for all of them, the edit comes
    back with the same changes. Prompts need no answers; an answer that is there is appended, and its tokens count too. A prompt that the
    model refuses is set aside, with the reason in the provenance.

    A map can only use what the layer's down-projection writes: dropped layers whose work is a linear map of that come back whole, and those
    whose work is linear in the stream do not. Less distance between states is no promise of better answers: evaluate the edit, on prompts
    that it was not fitted on, with short and with long answers.

    Args:
        loaded: the dense model; it is not changed.
        edit: an edit that drops layers, with nothing learnt yet.
        prompts: to measure states on.
        how: "ridge": least squares for a map of all channels. "scale": for a factor of each channel. "subspace": what the layer writes in
            the k directions in which the dropped layers added most is doubled, or with sign=-1 taken out (Short-LVLM).
        penalty: of "ridge" and "scale", over the mean square of what the layer writes; 0 for plain least squares.
        toward: where the penalty pulls: "identity", which leaves the layer as it is (our choice), or "zero", as ReplaceMe publishes it.
        k, sign, weight: of "subspace"; Short-LVLM does not say k, nor which weight: "mlp" is the down-projection (our choice), "attention"
            the output projection of the attention.
        tokens: token groups that are summed over; all tokens by default.
        on_progress: called after each batch; raising `Cancelled` in it stops the work.

    Raises:
        EditError: nothing is dropped, something was learnt already, an option is out of range, states are not finite, the weights are
            quantised, or memory is too small.
        PromptError: there are no prompts, or the model can take none of them.
    """
    groups: Any = tokens if isinstance(tokens, str) else tuple(tokens)
    options = Options(how, penalty, toward, k, sign, groups, weight)
    check_repairable(edit, loaded)
    return within_memory(
        lambda: _repaired(loaded, edit, prompts, options, on_progress or no_progress),
        lambda: EditError(
            f"The edit of {loaded.name} could not be repaired: expected enough memory, got less than it took. Nothing was changed. Take "
            "shorter prompts or smaller images."
        ),
    )


def _repaired(loaded: LoadedModel, edit: Edit, prompts: Sequence[Prompt], options: Options, progress: Progress) -> Edit:
    """Return the edit with a fold for each run that has a place for one."""
    apply_edit(loaded.model, edit)  # what cannot be applied is said before anything runs
    fit = _Fit(loaded, prompts, options, progress)
    folds: list[Change] = []
    runs = consecutive(edit.dropped)
    for number, run in enumerate(runs):
        fit.begin(number, len(runs))
        others = [change for change in edit.changes if not isinstance(change, Drop)]
        before = Drop(tuple(layer for other in runs[:number] for layer in other))
        found = fit.run(Edit(edit.n_layers, (*others, before, *folds)), run)
        if found is not None:
            folds.append(Fold(run[0] - 1, found, learnt_on=edit.before(Fold).key))
    told = {**options.used, "prompts": fit.prompts.fingerprint, "n_prompts": fit.n_used, "runs": fit.told}
    told |= {"set_aside": fit.set_aside} if fit.set_aside else {}
    name = f"{edit.name or edit.words()}, repaired ({options.how})" if folds else edit.name
    provenance = {**edit.provenance, REPAIR: told}
    return replace(edit, changes=(*edit.changes, *folds), name=name, model=loaded.info, provenance=provenance)


def why_not_repaired(edit: Edit) -> dict[str, str]:
    """Return by run of dropped layers, in words, why `repair` left it as it was; empty where it repaired all, or none was tried."""
    runs = edit.provenance.get(REPAIR, {}).get("runs", [])
    return {named(run["dropped"]): run["reason"] for run in runs if "reason" in run}


def check_repairable(edit: Edit, loaded: LoadedModel) -> None:
    """Check that there is something to repair, before anything runs.

    Raises:
        EditError: nothing is dropped, something was learnt already, the edit is of a model of other layers, or the weights are quantised.
    """
    check_edit(edit, loaded.n_layers)
    if loaded.quantiser is not None:
        raise EditError(
            f"An edit of {loaded.name} cannot be repaired: expected weights of numbers, got ones quantised with {loaded.quantiser}. Load "
            "the original."
        )
    if not edit.dropped:
        raise EditError("There is nothing to repair: expected an edit that drops layers, got one that drops none.")
    for change in edit.changes:
        if isinstance(change, Learnt):
            raise EditError(
                f"The edit cannot be repaired: expected one with nothing learnt yet, got one that {change.words()}. Take the mask that it "
                "was learnt on."
            )


@dataclass
class _Totals:
    """Running sums on the device of the states."""

    gram: torch.Tensor
    cross: torch.Tensor
    gap: torch.Tensor
    n_tokens: int = 0

    @classmethod
    def empty(cls, size: int, device: torch.device) -> _Totals:
        where = device if device.type in ("cpu", "cuda") else torch.device("cpu")  # others have no float64
        gram, cross, gap = (torch.zeros(size, size, dtype=torch.float64, device=where) for _ in range(3))
        return cls(gram, cross, gap)

    def add(self, written: torch.Tensor, missing: torch.Tensor) -> None:
        written, missing = (rows.to(self.gram.device, torch.float64) for rows in (written, missing))
        self.gram.addmm_(written.T, written)
        self.cross.addmm_(written.T, missing)
        self.gap.addmm_(missing.T, missing)
        self.n_tokens += len(written)

    def sums(self) -> Sums:
        return Sums(*(part.cpu().numpy() for part in (self.gram, self.cross, self.gap)), n_tokens=self.n_tokens)


class _Fit:
    """The prompts, encoded once, and what each run of layers was found to need."""

    def __init__(self, loaded: LoadedModel, prompts: Sequence[Prompt], options: Options, progress: Progress) -> None:
        self.loaded, self.options, self.progress = loaded, options, progress
        self.prompts = (prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)).readable()
        self.set_aside = dict(self.prompts.set_aside)
        self.told: list[dict[str, Any]] = []
        pairs = [self._pair(prompt) for prompt in self.prompts]
        self.encoded = EncodedPrompts(loaded, pairs, max_bytes=MAX_ENCODED_BYTES, on_progress=progress)
        for index, reason in self.encoded.refused.items():
            self.set_aside[str(self.prompts[index].id)] = reason
        self.batches = list(batches(self.encoded, batch_for(loaded)))
        self._refuse_none()

    def _pair(self, prompt: Prompt) -> tuple[Prompt, tuple[int, ...]] | None:
        try:
            return prompt, answer_tokens(self.loaded, prompt.answer, prompt.id)
        except PromptError as error:
            self.set_aside[str(prompt.id)] = str(error)
            return None

    @property
    def n_used(self) -> int:
        return sum(prompt.id not in self.set_aside for prompt in self.prompts)

    def _refuse_none(self) -> None:
        if not self.n_used:
            raise none_left(self.loaded.name, self.set_aside)

    def begin(self, number: int, n_runs: int) -> None:
        self._done, self._total = number * len(self.batches), n_runs * len(self.batches)

    def run(self, edit: Edit, run: tuple[int, ...]) -> Tensors | None:
        """Return the map for a run of layers that is still in the model of `edit`; None with the reason in `told`."""
        layer = run[0] - 1
        about: dict[str, Any] = {"dropped": list(run), "layer": layer}
        if layer < 0:
            self.told.append(about | {"reason": "no layer before it is kept"})
            return None
        model = apply_edit(self.loaded.model, edit)
        position = edit.kept.index(layer)
        watch = Watch(self.loaded, model, position, position + len(run))
        place = self._place(watch)
        if isinstance(place, str):
            self.told.append(about | {"reason": f"nothing can be folded into layer {layer}: {place}"})
            return None
        sums = self._sums(watch, place, layer)
        mapping = solve(sums, self.options).astype(np.float64 if place.is_double else np.float32)
        about |= {"module": place.name, "n_tokens": sums.n_tokens}
        if self.options.weight == MLP:  # what follows the attention answers to the map, so its gap is not known here
            about["gap_left"] = gap_left(sums, mapping.astype(float))
        self.told.append(about)
        return Tensors.of({place.name: mapping})

    def _place(self, watch: Watch) -> Place | str:
        """Return where the layer can be mapped, tried with the first prompt that the model takes."""
        while True:
            first = self.encoded[next(index for batch in self.batches for index in batch if self._counts(index))]
            try:
                return find_place(watch, first, self.options.weight)
            except PromptError as error:
                self.set_aside[first.id] = str(error)
                self._refuse_none()

    def _counts(self, index: int) -> bool:
        return self.prompts[index].id not in self.set_aside

    def _sums(self, watch: Watch, place: Place, layer: int) -> Sums:
        parameter = watch.layers[watch.first].get_parameter(f"{place.name}.weight")
        totals = _Totals.empty(parameter.shape[0], parameter.device)
        for number, batch in enumerate(self.batches):
            self._add(totals, watch, place, [index for index in batch if self._counts(index)])
            self.progress(self._done + number + 1, self._total, f"measuring what follows layer {layer}")
        self._refuse_none()
        if not totals.n_tokens:
            raise EditError(
                f"Nothing was measured: expected tokens of the groups {joined(self.options.tokens)} in the prompts, got none. "
                "Choose others."
            )
        return totals.sums()

    @torch.inference_mode()
    def _add(self, totals: _Totals, watch: Watch, place: Place, batch: list[int]) -> None:
        """Add a batch; prompts that fail together run one by one, and one that fails alone is set aside."""
        items = [self.encoded[index] for index in batch]
        if not items:
            return
        try:
            with watch.writing(place.name) as written:
                streams = watch.stream(items)
        except PromptError as error:
            if len(items) == 1:
                self.set_aside[items[0].id] = str(error)
            else:
                for index in batch:
                    self._add(totals, watch, place, [index])
            return
        if len(streams) < 2 or streams[0].shape != streams[1].shape or not is_like(written[0], streams[0]):
            raise EditError(
                f"{self.loaded.name} cannot be repaired: its layers get other tokens than the ones before. Keep the mask as it is."
            )
        chosen = _chosen(items, streams[0].shape[1], self.options.tokens)
        entering, leaving, wrote = (
            states.reshape(streams[0].shape)[chosen.to(states.device)].double() for states in (*streams, written[0])
        )
        missing, wrote = leaving.to(entering.device) - entering, place.factor * wrote
        if not (torch.isfinite(missing).all() and torch.isfinite(wrote).all()):
            raise EditError(
                f"The states of {joined(repr(item.id) for item in items[:3])} are not finite: expected numbers, got NaN or infinity. Take "
                "such prompts out, or load the model in another precision."
            )
        totals.add(wrote, missing)


def _chosen(items: Sequence[Encoded], width: int, tokens: Collection[str]) -> torch.Tensor:
    """Return which tokens of a padded batch count, (prompts, tokens) bool."""
    chosen = torch.zeros(len(items), width, dtype=torch.bool)
    for row, item in enumerate(items):
        groups = dict(zip(TOKEN_GROUPS, item.group_mask(), strict=True))
        chosen[row, : item.n_tokens] = torch.from_numpy(np.any([groups[name] for name in tokens], axis=0))
    return chosen
