"""Ways to choose where vision tokens skip layers, each of a source in the literature, from a scan or from a recording."""

from __future__ import annotations

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.vision import MASKED
from vlm_analysis.edits.skipping import early_exit, freeze, late_entry
from vlm_analysis.errors import EditError, short
from vlm_analysis.evaluation.scan import DENSE, EARLY_EXIT, FROZEN, VisionScan
from vlm_analysis.recording.recording import Recording

KL_BOUND, FIRST_EXIT = 0.003, 5  # VTW's, for LLaVA-1.5-7B
LEAST_KEPT = 0.9  # of the dense model's exact matches, by an edit of `scan_front`; our choice


def exit_by_kl(
    scan: VisionScan, *, bound: float = KL_BOUND, first: int = FIRST_EXIT, domain: str | None = None
) -> Edit:
    """Return the earliest exit at layer `first` or later whose mean KL at the last prompt token is at most `bound` (VTW, arXiv:2405.05803).

    The direction KL(dense ‖ edited) is our choice.

    Raises:
        EditError: no exit keeps the bound.
        EvaluationError: no prompt of this domain was scanned.
    """
    kl = _column(scan, EARLY_EXIT, "first_kl_to_dense", domain)
    kept = [layer for layer, value in kl.items() if layer >= first and value <= bound]
    if not kept:
        least = min((value for layer, value in kl.items() if layer >= first), default=np.nan)
        raise EditError(
            f"No early exit keeps the bound: expected a KL of at most {bound:g} at layer {first} or later, got {least:.3g}. Raise it."
        )
    return scan.edit(EARLY_EXIT, min(kept))


def freeze_by_kl(scan: VisionScan, n_frozen: int, *, domain: str | None = None) -> Edit:
    """Return the Edit that freezes the `n_frozen` layers of least KL(edited ‖ dense) at the last prompt token (ShortV, arXiv:2504.00502).

    Each was measured alone: evaluate the Edit.

    Raises:
        EditError: more layers than were scanned, or a KL that is no number.
        EvaluationError: no prompt of this domain was scanned.
    """
    kl = _column(scan, FROZEN, "first_kl_from_dense", domain)
    known = sorted((value, layer) for layer, value in kl.items() if np.isfinite(value))
    if not 0 <= n_frozen <= len(known):
        raise EditError(
            f"Layers cannot be frozen: expected 0 to {len(known)} with a finite KL, got {short(repr(n_frozen), 40)}. Ask for fewer."
        )
    layers = [layer for _, layer in known[:n_frozen]]
    return freeze(scan.model.n_layers, layers, form=scan.form, deepstack=scan.deepstack)


def within_flops(scan: VisionScan, share: float, *, domain: str | None = None) -> Edit:
    """Return the scanned edit of least KL(dense ‖ edited) that takes at most `share` of the dense FLOPs (see `VisionScan.flops_share`).

    Raises:
        EditError: no scanned edit takes so few.
        EvaluationError: no prompt of this domain was scanned.
    """
    kl = scan.table(domain)["kl_to_dense"]
    flops = {one: scan.flops_share(scan.edit(*one)) for one in kl.index}
    fitting = [one for one in kl.index if flops[one] <= share and np.isfinite(kl[one])]
    if not fitting:
        raise EditError(
            f"No scanned edit fits the budget: expected at most {share:.0%} of the dense FLOPs, got {min(flops.values()):.0%} at least. "
            "Raise it, or drop layers besides."
        )
    return scan.edit(*min(fitting, key=lambda one: (kl[one], flops[one])))


def scan_front(scan: VisionScan, most: int = 3, *, domain: str | None = None, least: float = LEAST_KEPT) -> list[Edit]:
    """Return up to `most` scanned edits that no other beats in KL(dense ‖ edited) and in FLOPs, the most FLOPs first.

    Only those count that keep at least `least` of the dense model's exact matches, since the cheapest of all keep next to none; where none
    does, the one of the least KL is taken alone. Of the rest they are those nearest to even steps of FLOPs from the dense model's to the
    fewest. Bound and steps are our choice.

    Raises:
        EvaluationError: no prompt of this domain was scanned.
    """
    table = scan.table(domain)
    kl, match = table["kl_to_dense"], table["exact_match"]
    flops = {one: scan.flops_share(scan.edit(*one)) for one in kl.index if one[0] != DENSE and np.isfinite(kl[one])}
    front, lowest = list[tuple[str, int]](), np.inf
    for one in sorted(flops, key=lambda one: (flops[one], kl[one])):
        if kl[one] < lowest:
            front.append(one)
            lowest = kl[one]
    dense = match.get((DENSE, -1), np.nan)
    useful = [one for one in front if not match[one] < least * dense] or front[-1:]
    near = list[tuple[str, int]]()
    for step in np.linspace(1, min((flops[one] for one in useful), default=1), most + 1)[1:]:
        rest = [one for one in useful if one not in near]
        near += [min(rest, key=lambda one: abs(flops[one] - step))] if rest else []
    return [scan.edit(*one) for one in sorted(near, key=lambda one: -flops[one])]


def span_by_similarity(
    recording: Recording, *, flat: float = 0.01, form: str = MASKED, domain: str | None = None
) -> Edit:
    """Return the late entry and early exit that the cosines of vision tokens suggest (after HiDrop, arXiv:2602.23699).

    They enter at the first local minimum of the curve of each layer's mean cosine of input and output, where fusion begins. They leave
    behind the last layer whose cosine is more than `flat` below the highest of those after it: from there on the curve is a plateau. How
    the paper finds minimum and plateau is not told; both are our choice.

    Raises:
        EditError: the curve holds no local minimum or has numbers that are not finite.
        RecordingError: an unknown domain.
    """
    curve, n_layers = recording.layer_similarity(domain, "vision"), recording.n_layers
    if not np.isfinite(curve).all():
        raise EditError(
            "The layers cannot be chosen by similarity: expected finite cosines of vision tokens, got NaN. Record prompts with images."
        )
    low = [at for at in range(1, n_layers - 1) if curve[at] < curve[at - 1] and curve[at] <= curve[at + 1]]
    if not low:
        raise EditError(
            "The layers cannot be chosen by similarity: expected a local minimum of the curve, got none. Scan, and choose by KL."
        )
    top = np.maximum.accumulate(curve[::-1])[::-1]  # the highest from each layer on
    steep = [layer for layer in range(low[0], n_layers) if curve[layer] < top[layer] - flat]
    out = max(low[0], *steep, 0) + 1
    return late_entry(n_layers, low[0], form=form) + early_exit(n_layers, out, form=form)


def _column(scan: VisionScan, way: str, name: str, domain: str | None) -> dict[int, float]:
    """Return a score's mean by layer, for one way."""
    table = scan.table(domain)
    if way not in table.index.get_level_values("way"):
        raise EditError(
            f"The scan holds no {way}: expected one at least, got a model that refuses all of them. Choose another way."
        )
    column = table.loc[way][name]
    return dict(zip(column.index.astype(int).tolist(), column.astype(float).tolist(), strict=True))
