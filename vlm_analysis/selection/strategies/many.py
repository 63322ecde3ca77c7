"""The masks to compare: all criteria with the strategies that take scores, and the strategies that take none, at many budgets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.skipping import in_short
from vlm_analysis.errors import EditError, MaskError, StrataError
from vlm_analysis.model_info import Locks
from vlm_analysis.progress import stop_if_asked
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.scoring import score_layers
from vlm_analysis.selection.strategies.make import make_mask
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.words import counted, sentence

RANDOM = "random"
METHODS = {"mixed": "Mixed"}
"""What a criterion is called in comparisons, where that is not its title: as version 0.1 wrote it."""
SKIPS = " | vision: "  # between a way's strategy and where vision tokens skip layers beside it
PLAIN, SPACED = "first-k", "minimum-gap"
COMPARED = (PLAIN, SPACED, "angular-block", "interlace", "last-n", "evenly-spaced", "middle-block", "random-draw")


@dataclass(frozen=True)
class Way:
    """One mask and how it was made.

    Attributes:
        method: criterion and strategy as shown on screen, without the budget.
        criterion, target: None where the strategy needs no scores, or the criterion no target.
        budget: layers dropped.
        draw: number of the random draw; 0 for masks that are not drawn.
    """

    method: str
    criterion: str | None
    strategy: str
    target: str | None
    budget: int
    draw: int
    mask: Edit


def many_masks(
    recording: Recording,
    budgets: Sequence[int],
    *,
    criteria: Collection[str] | None = None,
    strategies: Collection[str] = COMPARED,
    damage: Damage | None = None,
    locks: Locks | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    token_group: str = "all",
    n_draws: int = 5,
    seed: int = 0,
    vision: Sequence[Edit] = (),
) -> tuple[list[Way], dict[str, str]]:
    """Return every way to a mask at these budgets, and by method the reason where there is none.

    Criteria that take a target are computed once for each domain of the recording, measured damage also for all prompts.

    Args:
        criteria: keys of `CRITERIA`; None for all but `random`, which is the strategy `random-draw` here.
        strategies: keys of `STRATEGIES`; those that measure the model again are left out.
        damage: for criteria that need it; without it they are refused.
        locks, protected, locked: as in `make_mask`.
        n_draws: draws of `random-draw` at each budget, with consecutive seeds from `seed`.
        vision: edits in which vision tokens skip layers, as of `scan_front`: each alone, and beside every mask (see `with_vision`).

    Raises:
        MaskError: an unknown criterion or strategy, or budgets that are not numbers of layers.
        Cancelled: raised by `stop_if_asked`, before a criterion or a mask is computed.
    """
    _check_names("criteria", criteria or (), CRITERIA)
    _check_names("strategies", strategies, STRATEGIES)
    if not isinstance(budgets, Collection) or not all(map(is_whole, budgets)):
        raise MaskError(f"No such budgets: expected numbers of layers, as in range(1, 5), got {str(budgets)[:200]!r}.")
    locks = Locks.given(recording.n_layers, locks, protected, locked)
    kinds: dict[str, Any] = {"locks": locks}
    most = len(locks.free)
    ways: list[Way] = []
    refused: dict[str, str] = {}
    for method, criterion, target, scores in _scored(recording, criteria, damage, token_group, seed, refused):
        for strategy in (one for one in strategies if STRATEGIES[one].needs == "scores"):
            name = method if strategy == PLAIN else f"{method}, {STRATEGIES[strategy].title.lower()}"
            for budget in budgets:
                _add(ways, refused, (name, criterion, strategy, target, budget, 0), most, scores, kinds)
    for strategy in (one for one in strategies if STRATEGIES[one].needs in ("recording", "nothing")):
        row, is_drawn = STRATEGIES[strategy], "seed" in STRATEGIES[strategy].takes
        name = RANDOM if is_drawn else row.title
        arguments = {"recording": recording} if row.needs == "recording" else {"n_layers": recording.n_layers}
        for budget in budgets:
            for draw in range(n_draws if is_drawn else 1):
                way = (name, None, strategy, None, budget, draw)
                _add(ways, refused, way, most, None, kinds | arguments | {"seed": seed + draw})
    return with_vision(ways, vision), refused


def with_vision(ways: Sequence[Way], edits: Sequence[Edit]) -> list[Way]:
    """Return the ways, then for each edit in which vision tokens skip layers it alone, with a budget of 0, and beside the mask of each way.

    Random masks are left out, and masks beside which an edit cannot stand.
    """
    made = list(ways)
    for edit in edits:
        words = in_short(edit)
        alone = replace(edit, name=sentence(edit.words()))
        made.append(Way(alone.name, None, f"none{SKIPS}{words}", None, 0, 0, alone))
        for way in ways:
            if way.method == RANDOM:
                continue
            with suppress(EditError):
                both = replace(way.mask + edit, name=f"{way.mask.name}, {words}")
                name, strategy = f"{way.method}, {words}", f"{way.strategy}{SKIPS}{words}"
                made.append(replace(way, method=name, strategy=strategy, mask=both))
    return made


def _check_names(what: str, names: Collection[str], table: Collection[str]) -> None:
    unknown = [
        name for name in ([names] if isinstance(names, str) else names) if isinstance(names, str) or name not in table
    ]
    if unknown:
        raise MaskError(f"Unknown {what}: expected a list of some of {list(table)}, got {unknown}.")


def targets_of(criterion: str, domains: Sequence[str]) -> list[str | None]:
    """Return the targets to compute a criterion for; None stands for all prompts."""
    row = CRITERIA[criterion]
    if "target" not in row.takes:
        return [None]
    if row.needs == "damage":
        return [None, *domains] if len(domains) > 1 else [None]
    return list(domains)


def _scored(
    recording: Recording,
    criteria: Collection[str] | None,
    damage: Damage | None,
    token_group: str,
    seed: int,
    refused: dict[str, str],
) -> Iterator[tuple[str, str, str | None, LayerScores]]:
    """Yield method, criterion, target and scores of each criterion that can be computed; add the others to `refused`."""
    names = [name for name in CRITERIA if name != RANDOM] if criteria is None else criteria
    for criterion in names:
        title = METHODS.get(criterion, CRITERIA[criterion].title)
        for target in targets_of(criterion, recording.domain_names):
            stop_if_asked()
            method = title if target is None else f"{title} ({target})"
            arguments = {"target": target, "damage": damage, "token_group": token_group, "seed": seed}
            try:
                yield method, criterion, target, score_layers(recording, criterion, **arguments)  # type: ignore[arg-type]
            except StrataError as error:
                refused[method] = str(error)


def _add(
    ways: list[Way],
    refused: dict[str, str],
    way: tuple[str, str | None, str, str | None, int, int],
    most: int,
    scores: LayerScores | None,
    arguments: dict[str, Any],
) -> None:
    """Add the mask of one way; budgets above the number of layers that may go are skipped without a reason."""
    stop_if_asked()
    method, _, strategy, _, budget, draw = way
    if not 0 < budget <= most:
        return
    try:
        mask = make_mask(scores, strategy, budget, **arguments)
    except StrataError as error:
        refused.setdefault(method, f"{counted(budget, 'layer')}: {error}")
        return
    suffix = f", draw {draw + 1}" if method == RANDOM else ""
    name = f"{method}, {budget} layers{suffix}"
    ways.append(Way(*way, replace(mask, name=name)))
