"""Every mask worth comparing: all criteria, with the strategies that take scores and those that do not, at many budgets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import MaskError, StrataError
from vlm_analysis.model_info import Locks
from vlm_analysis.progress import stop_if_asked
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.scoring import score_layers
from vlm_analysis.selection.strategies.make import make_mask
from vlm_analysis.selection.strategies.strategies import STRATEGIES

RANDOM = "random"
PLAIN, SPACED = "first-k", "minimum-gap"
COMPARED = (PLAIN, SPACED, "angular-block", "interlace", "last-n", "evenly-spaced", "middle-block", "random-draw")


@dataclass(frozen=True)
class Way:
    """One way to a mask.

    Attributes:
        method: what it is called on screen, without the budget.
        criterion, target: None where the strategy needs no scores, or the criterion no target.
        budget: layers dropped.
        draw: number of the draw, of random ones; 0 for all others.
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
) -> tuple[list[Way], dict[str, str]]:
    """Return every way to a mask at these budgets, and by method why there is none at some of them.

    Criteria that take a target are asked once for each domain of the recording, measured damage for all prompts too.

    Args:
        criteria: keys of `CRITERIA`; None for all but `random`, which is the strategy `random-draw` here.
        strategies: keys of `STRATEGIES`; those that measure the model again are left out.
        damage: for criteria that need it; without it they are among the refused.
        locks, protected, locked: as in `make_mask`.
        n_draws: of `random-draw`, at each budget, from `seed` on.

    Raises:
        MaskError: a criterion, strategy or budget that is none.
        Cancelled: before a ranking or a mask, where `stop_if_asked` does.
    """
    _check_names("criteria", criteria or (), CRITERIA)
    _check_names("strategies", strategies, STRATEGIES)
    if not isinstance(budgets, Collection) or not all(map(is_whole, budgets)):
        raise MaskError(f"No such budgets: expected numbers of layers, as in range(1, 5), got {str(budgets)[:200]!r}.")
    staying = Locks.given(recording.n_layers, locks, protected, locked)
    kinds: dict[str, Any] = {"locks": staying}
    most = len(staying.free)
    found: list[Way] = []
    refused: dict[str, str] = {}
    for method, criterion, target, scores in _scored(recording, criteria, damage, token_group, seed, refused):
        for strategy in (one for one in strategies if STRATEGIES[one].needs == "scores"):
            name = method if strategy == PLAIN else f"{method}, {STRATEGIES[strategy].title.lower()}"
            for budget in budgets:
                _add(found, refused, (name, criterion, strategy, target, budget, 0), most, scores, kinds)
    for strategy in (one for one in strategies if STRATEGIES[one].needs in ("recording", "nothing")):
        row, drawn = STRATEGIES[strategy], "seed" in STRATEGIES[strategy].takes
        name = RANDOM if drawn else row.title
        asked = {"recording": recording} if row.needs == "recording" else {"n_layers": recording.n_layers}
        for budget in budgets:
            for draw in range(n_draws if drawn else 1):
                way = (name, None, strategy, None, budget, draw)
                _add(found, refused, way, most, None, kinds | asked | {"seed": seed + draw})
    return found, refused


def _check_names(what: str, given: Collection[str], known: Collection[str]) -> None:
    unknown = [
        name for name in ([given] if isinstance(given, str) else given) if isinstance(given, str) or name not in known
    ]
    if unknown:
        raise MaskError(f"Unknown {what}: expected a list of some of {list(known)}, got {unknown}.")


def targets_of(criterion: str, domains: Sequence[str]) -> list[str | None]:
    """Return the targets that a criterion is asked with, None for all prompts."""
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
    """Yield method, criterion, target and scores of all that can be asked; the others are among the refused."""
    chosen = [name for name in CRITERIA if name != RANDOM] if criteria is None else criteria
    for criterion in chosen:
        title = CRITERIA[criterion].title
        for target in targets_of(criterion, recording.domain_names):
            stop_if_asked()
            method = title if target is None else f"{title} ({target})"
            asked = {"target": target, "damage": damage, "token_group": token_group, "seed": seed}
            try:
                yield method, criterion, target, score_layers(recording, criterion, **asked)  # type: ignore[arg-type]
            except StrataError as error:
                refused[method] = str(error)


def _add(
    found: list[Way],
    refused: dict[str, str],
    way: tuple[str, str | None, str, str | None, int, int],
    most: int,
    scores: LayerScores | None,
    asked: dict[str, Any],
) -> None:
    """Add the mask of one way; a budget beyond the layers that may go is nobody's fault and is left out."""
    stop_if_asked()
    method, _, strategy, _, budget, draw = way
    if not 0 < budget <= most:
        return
    try:
        made = make_mask(scores, strategy, budget, **asked)
    except StrataError as error:
        refused.setdefault(method, f"{budget} layers: {error}")
        return
    told = f", draw {draw + 1}" if method == RANDOM else ""
    name = f"{method}, {budget} layers{told}"
    found.append(Way(*way, replace(made, name=name)))
