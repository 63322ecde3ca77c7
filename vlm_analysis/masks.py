"""Prune masks: which decoder layers are dropped, as a value; and the strategies that turn scores into a mask."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.files import write_atomically
from vlm_analysis.rank.scores import LayerScores
from vlm_analysis.recording import ModelInfo, Recording

SCHEMA_VERSION = 1
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class PruneMask:
    """Which of `n_layers` decoder layers are dropped, counted from 0.

    Two masks are equal when they drop the same layers of the same number; name, notes and provenance do not count.

    >>> mask = PruneMask(8, [5, 3])
    >>> mask.dropped, mask.kept, mask.budget, mask.ratio
    ((3, 5), (0, 1, 2, 4, 6, 7), 2, 0.25)

    Raises:
        MaskError: an index that is not a whole number in 0..n_layers-1 or comes twice, or no layer left.
    """

    n_layers: int
    dropped: tuple[int, ...] = ()
    name: str = field(default="", kw_only=True, compare=False)
    notes: str = field(default="", kw_only=True, compare=False)
    model: ModelInfo | None = field(default=None, kw_only=True, compare=False)
    provenance: dict[str, Any] = field(default_factory=dict, kw_only=True, compare=False)

    def __post_init__(self) -> None:
        if not _is_whole(self.n_layers) or not 1 <= self.n_layers <= MOST_LAYERS:
            raise MaskError(
                f"A mask needs the number of layers: expected a whole number in 1..{MOST_LAYERS}, got {self.n_layers!r}."
            )
        dropped = tuple(self.dropped)
        for layer in dropped:
            if not _is_whole(layer) or not 0 <= layer < self.n_layers:
                raise MaskError(f"No such layer to drop: expected whole numbers 0..{self.n_layers - 1}, got {layer!r}.")
        if len(set(dropped)) != len(dropped):
            raise MaskError(f"A mask names each layer once, got {sorted(dropped)}.")
        if len(dropped) == self.n_layers:
            raise MaskError(f"A mask must keep at least one layer: all {self.n_layers} are dropped.")
        if any(0xD800 <= ord(character) <= 0xDFFF for character in self.name + self.notes):
            raise MaskError("The name or notes of a mask hold half a character. Type them again.")
        object.__setattr__(self, "n_layers", int(self.n_layers))
        object.__setattr__(self, "dropped", tuple(sorted(int(layer) for layer in dropped)))

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(layer for layer in range(self.n_layers) if layer not in self.dropped)

    @property
    def budget(self) -> int:
        """Return the number of dropped layers."""
        return len(self.dropped)

    @property
    def ratio(self) -> float:
        """Return dropped layers over all layers, in [0, 1)."""
        return self.budget / self.n_layers


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


# --- strategies ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Strategy:
    """A way to turn scores into dropped layers: `choose(scores, candidates, budget)` returns layers out of `candidates`,
    at most `budget` of them. `needs` says what it takes: scores, a recording or nothing; `ordered`, that the layers come in the
    order in which they go."""

    title: str
    source: str
    needs: Literal["scores", "recording", "nothing"]
    choose: Callable[[LayerScores, list[int], int], Iterable[int]]
    ordered: bool = False


def _first_k(scores: LayerScores, candidates: list[int], budget: int) -> list[int]:
    allowed = set(candidates)
    return [layer for layer in scores.order if layer in allowed][:budget]


def _contiguous_block(scores: LayerScores, candidates: list[int], budget: int) -> list[int]:
    """Return the run of `budget` neighbouring layers whose summed wish to be dropped is largest; ties to the lower start."""
    if budget == 0:
        return []
    wish = scores.values if scores.drop == "highest" else -scores.values
    allowed = set(candidates)
    starts = [start for start in candidates if all(start + step in allowed for step in range(budget))]
    sums = {start: wish[start : start + budget].sum() for start in starts}
    finite = {start: total for start, total in sums.items() if math.isfinite(total)}
    if not finite:
        raise MaskError(
            f"No contiguous block of {budget} layers can be dropped: the layers that may go are {candidates}. Drop fewer."
        )
    best = max(finite, key=lambda start: (finite[start], -start))
    return list(range(best, best + budget))


STRATEGIES: dict[str, Strategy] = {
    "first-k": Strategy(
        "First k of the drop order", "one-shot ranking, as in arXiv:2603.20275", "scores", _first_k, True
    ),
    "contiguous-block": Strategy(
        "Contiguous block",
        "the best run of neighbours by summed score (our choice of sum)",
        "scores",
        _contiguous_block,
    ),
}


def make_mask(
    scores: LayerScores | None,
    strategy: str,
    budget: int | float,
    *,
    n_layers: int | None = None,
    recording: Recording | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    seed: int = 0,
) -> PruneMask:
    """Return the mask that `strategy` makes of `scores`.

    Args:
        scores: layer scores; None for a strategy that needs none.
        strategy: a key of `STRATEGIES`.
        budget: layers to drop (int), or the ratio of all layers (float in [0, 1); the floor counts).
        n_layers: needed only where neither scores nor a recording tells it.
        recording: for strategies that read one.
        protected: layers that stay; None means the first and the last.
        locked: layers that can never go.
        seed: for strategies that draw.

    Raises:
        MaskError: an unknown strategy, a budget that cannot be met, or inputs that do not fit together.
    """
    if strategy not in STRATEGIES:
        raise MaskError(f"Unknown strategy: expected one of {list(STRATEGIES)}, got {strategy!r}.")
    needs = STRATEGIES[strategy].needs
    if needs == "scores" and scores is None:
        raise MaskError(f"Strategy {strategy!r} needs layer scores. Call score_layers first.")
    n_layers = _count_layers(scores, recording, n_layers)
    staying = ({0, n_layers - 1} if protected is None else set(protected)) | set(locked)
    candidates = [layer for layer in range(n_layers) if layer not in staying]
    wanted = _as_layers(budget, n_layers)
    if wanted > len(candidates):
        raise MaskError(
            f"Cannot drop {wanted} layers: {len(candidates)} of {n_layers} may go, the others are protected or locked. "
            "Lower the budget or unprotect layers."
        )
    assert scores is not None
    dropped = list(STRATEGIES[strategy].choose(scores, candidates, wanted))
    if len(dropped) < wanted:
        raise MaskError(f"Cannot drop {wanted} layers: only {len(dropped)} that may go have a score. Lower the budget.")
    provenance = {"strategy": strategy, "budget": budget, "seed": seed, "criterion": scores.criterion, **scores.options}
    provenance |= {"drop_order": [int(layer) for layer in dropped]} if STRATEGIES[strategy].ordered else {}
    return PruneMask(n_layers, tuple(dropped), name=f"{scores.criterion}, {strategy}, {wanted}", provenance=provenance)


def _count_layers(scores: LayerScores | None, recording: Recording | None, n_layers: int | None) -> int:
    told = {len(scores.values) if scores else None, recording.n_layers if recording else None, n_layers} - {None}
    if len(told) != 1:
        raise MaskError(
            f"Scores, recording and n_layers must agree on the number of layers, got {sorted(map(str, told))}."
        )
    count = told.pop()
    assert count is not None
    return count


def _as_layers(budget: int | float, n_layers: int) -> int:
    if _is_whole(budget) and budget >= 0:
        return int(budget)
    if isinstance(budget, float) and 0 <= budget < 1:
        return math.floor(budget * n_layers + 1e-9)  # 0.29 * 100 is 28.999…
    raise MaskError(f"A budget is a number of layers (int, at least 0) or a ratio (float in [0, 1)), got {budget!r}.")


# --- files ---------------------------------------------------------------------------------------------------------


def mask_to_json(mask: PruneMask) -> str:
    """Return the mask file's text: schema version, numbering from 0, layers, model and provenance.

    The model is told by `source` (hub id, or the folder's name without the way to it), `revision` (of a hub id), `config_hash`
    (see `ModelInfo`), `fingerprint` and `n_layers`; whatever is not known is null.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": "strata-mask",
        "numbering": 0,
        "n_layers": mask.n_layers,
        "dropped": list(mask.dropped),
        "name": mask.name,
        "notes": mask.notes,
        "model": None if mask.model is None else _model_to_json(mask.model),
        "provenance": mask.provenance,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, default=plain) + "\n"


def _model_to_json(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.name,
        "source": model.name,
        "revision": model.revision,
        "config_hash": model.config_hash,
        "fingerprint": model.fingerprint,
        "n_layers": model.n_layers,
    }


def plain(value: Any) -> Any:
    """Return a numpy number as Python's, for `json.dumps(default=plain)`."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def save_mask(mask: PruneMask, path: Path) -> Path:
    """Write the mask as JSON; the file appears whole or not at all. Returns the path."""
    return write_atomically(Path(path), lambda part: part.write_text(mask_to_json(mask), "utf-8") and None)


def open_mask(path: Path) -> PruneMask:
    """Open a mask written by `save_mask`.

    Raises:
        MaskError: the file is missing, not JSON, of another kind or version, or names layers that do not exist.
    """
    path = Path(path)
    try:
        return mask_from_json(path.read_text("utf-8"), path.name)
    except (OSError, ValueError) as error:
        raise MaskError(f"No mask can be read at {path}: {error}.") from error


def mask_from_json(text: str, name: str = "The text") -> PruneMask:
    """Return the mask of a mask file's text (see `open_mask`); one that declares `numbering` 1 is converted, once."""
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(content, ensure_ascii=False).encode()  # half a character could never be written again
    except (ValueError, RecursionError) as error:
        raise MaskError(f"{name} is not a mask: expected JSON, got an error at {error}.") from error
    if not isinstance(content, dict) or content.get("kind") != "strata-mask":
        raise MaskError(f"{name} is not a mask: expected JSON with kind 'strata-mask'.")
    first = content.get("numbering")
    if content.get("schema_version") != SCHEMA_VERSION or not _is_whole(first) or first not in (0, 1):
        got = f"version {content.get('schema_version')!r}, numbering {first!r}"
        raise MaskError(
            f"{name} cannot be read: expected schema version {SCHEMA_VERSION} and numbering 0 or 1, got {got}. Update Strata."
        )
    dropped, model, provenance = content.get("dropped"), content.get("model"), content.get("provenance")
    if not isinstance(dropped, list):
        raise MaskError(f"{name} is not a mask: expected a list of layers in 'dropped', got {dropped!r}.")
    return PruneMask(
        content.get("n_layers"),  # type: ignore[arg-type]  # checked by PruneMask
        tuple(layer - first if _is_whole(layer) else layer for layer in dropped),
        name=str(content.get("name") or ""),
        notes=str(content.get("notes") or ""),
        model=_model_from_json(model, name),
        provenance=provenance if isinstance(provenance, dict) else {},
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _model_from_json(model: Any, name: str) -> ModelInfo | None:
    if model is None:
        return None
    try:
        known = {key: str(model[key]) for key in ("revision", "config_hash") if model.get(key) is not None}
        return ModelInfo(str(model["name"]), str(model["fingerprint"]), int(model["n_layers"]), **known)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise MaskError(f"{name} is not a mask: its 'model' lacks {error}.") from error
