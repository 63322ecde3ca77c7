"""Search over mixes of kinds on measured damage: dropped layers, steps of width, and where vision tokens skip layers. Our choice."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EditError, MaskError, short
from vlm_analysis.model_info import Locks
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.selection.search.objective import BY_KL, Objective
from vlm_analysis.selection.search.search import Judge, Layers, Measure, step_progress

CLOSE = 1e-9  # of a budget, by which sums may miss it
STOPPED = "The search over mixes stopped at its limit of time; what was missing to the budget then was filled up without measuring."


@dataclass(frozen=True, order=True)
class Mix:
    """A point of the search.

    Attributes:
        dropped: layers that are left out, ascending.
        narrow: how many steps of width are cut from the layers that stay.
        vision: which of the edits in which vision tokens skip layers, from 1 on; 0 for none.
    """

    dropped: Layers = ()
    narrow: int = 0
    vision: int = 0


def search_mix(
    measure: Measure,
    make: Callable[[Mix], Edit],
    saved: Callable[[Mix], float],
    share: float,
    *,
    n_layers: int,
    locks: Locks | None = None,
    most_narrow: int = 0,
    n_vision: int = 0,
    objective: Objective = BY_KL,
    width: int = 1,
    most_s: float = inf,
    on_progress: Progress | None = None,
) -> Edit:
    """Return the mix that meets the budget with the least harm found, one step of one kind at a time.

    A step drops one layer more, cuts one step of width more, or takes an edit in which vision tokens skip layers where there is none yet.
    Points are ranked by harm for each share that they save (at most the budget), since steps of other kinds save other shares; the `width`
    best of each step go on, and one that meets the budget is done. With a width of 1 it is greedy.

    Args:
        measure: evaluates edits on one prompt set (see `Measure`); called for the dense model, then once a step.
        make: returns the Edit of a point; where it raises EditError there is no such point.
        saved: returns the share that a point saves.
        share: the budget, a share between 0 and 1 that is to be saved at least.
        n_layers, locks: of the model; protected and locked layers stay.
        most_narrow: how many steps of width there are.
        n_vision: how many edits in which vision tokens skip layers there are.
        objective: what harm is, as in `greedy`.
        width: how many points of a step go on.
        most_s: no step begins later than so many seconds after the first. The best point by then is filled up to the budget with the
            steps that harmed least alone, and `provenance["stopped"]` says so. Without it the result is the same each time.

    Raises:
        MaskError: no mix meets the budget, the time does not suffice for one step, or as in `greedy`.
    """
    if not is_whole(width) or width < 1:
        raise MaskError(
            f"No mix can be searched: expected a width of at least 1, got {short(repr(width), 40)}. Widen it."
        )
    search = _Search(Judge(measure, objective, n_layers), make, saved, share, Locks.given(n_layers, locks).free)
    search.most = {"narrow": most_narrow, "vision": n_vision}
    begun, progress = time.monotonic(), on_progress or no_progress
    n_steps = search.n_layers_to_go()
    beam, done, stopped = [Mix()], list[tuple[Any, Mix]](), ""
    while beam:
        if time.monotonic() - begun > most_s:
            beam, done, stopped = [], done or search.filled(beam), STOPPED
            continue
        progress(*step_progress(len(search.steps), max(n_steps, len(search.steps) + 1), "step", search.best_harm))
        ranked = search.step(beam)[:width]
        done += [one for one in ranked if search.meets(one[1])]
        beam = [mix for _, mix in ranked if not search.meets(mix)]
    if not done:
        raise MaskError(
            f"No mix meets the budget: expected one that saves {share:.0%}, got none of {search.n_tried} that was measured. Lower the "
            "budget, or let more layers go."
        )
    mix = min((rank[1:], mix) for rank, mix in done)[1]
    edit, strategy = make(mix), "greedy over kinds" if width == 1 else "beam over kinds"
    told: dict[str, Any] = {"strategy": strategy, "share": share, "objective": asdict(objective), "width": width}
    told |= {
        "mix": asdict(mix),
        "tried": search.n_tried,
        "steps": search.steps,
        **({"stopped": stopped} if stopped else {}),
    }
    return replace(edit, name=f"{objective.score}, {strategy}, {share:.0%}", provenance={**edit.provenance, **told})


class _Search:
    """What the search over mixes has measured."""

    def __init__(
        self,
        judge: Judge,
        make: Callable[[Mix], Edit],
        saved: Callable[[Mix], float],
        share: float,
        free: Sequence[int],
    ) -> None:
        self._judge, self._make, self._saved, self._share, self._free = judge, make, saved, share, free
        self.most: dict[str, int] = {}
        self.steps: list[dict[str, Any]] = []
        self.n_tried = 0
        self.best_harm: float | None = None
        self._alone: list[Mix] = []  # the first step, the least harm first

    def meets(self, mix: Mix) -> bool:
        return self._saved(mix) >= self._share - CLOSE

    def step(self, beam: Collection[Mix]) -> list[tuple[Any, Mix]]:
        """Return the points of the next step that can be run, each with its rank, the best first."""
        edits: dict[Mix, Edit] = {}
        for mix in sorted({after for one in beam for after in self._moves(one)}):
            try:
                edits[mix] = self._make(mix)
            except EditError:
                continue  # there is no such point
        ranked = []
        for mix, rank in zip(edits, self._judge.of(list(edits.values())) if edits else [], strict=True):
            saves = min(self._saved(mix), self._share)
            if rank is not None and saves > 0:
                ranked.append(((rank[0] / saves, *rank), mix))
        ranked.sort()
        self.n_tried += len(edits)
        if ranked:
            self._alone = self._alone or [mix for _, mix in ranked]
            self.best_harm = ranked[0][0][1]
            self.steps.append({**asdict(ranked[0][1]), "harm": self.best_harm, "tried": len(edits)})
        return ranked

    def n_layers_to_go(self) -> int:
        """Return about how many steps there will be: as many as layers have to go for the budget."""
        counts = range(1, len(self._free) + 1)
        return next((n for n in counts if self.meets(Mix(tuple(self._free[:n])))), len(counts))

    def filled(self, beam: Sequence[Mix]) -> list[tuple[Any, Mix]]:
        """Return the best point so far, filled up to the budget with the steps that harmed least alone; none where nothing was measured."""
        mix = beam[0]
        while self._alone and not self.meets(mix):
            after = next((one for one in (self._added(mix, step) for step in self._alone) if one is not None), None)
            if after is None:
                return []
            mix = after
        return [((0.0, 0.0), mix)] if self._alone else []

    def _added(self, mix: Mix, step: Mix) -> Mix | None:
        """Return a point after a step that was measured alone; None where there is no such point."""
        dropped = tuple(sorted({*mix.dropped, *step.dropped}))
        after = Mix(dropped, mix.narrow + step.narrow, mix.vision or step.vision)
        if after == mix or after.narrow > self.most["narrow"]:
            return None
        try:
            self._make(after)
        except EditError:
            return None
        return after

    def _moves(self, mix: Mix) -> Iterator[Mix]:
        for layer in self._free:
            if layer not in mix.dropped:
                yield replace(mix, dropped=tuple(sorted((*mix.dropped, layer))))
        if mix.narrow < self.most["narrow"]:
            yield replace(mix, narrow=mix.narrow + 1)
        if not mix.vision:
            for number in range(1, self.most["vision"] + 1):
                yield replace(mix, vision=number)
