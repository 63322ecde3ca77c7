"""The Edit: the changes to a dense model, as a value. A prune mask is an Edit that only drops layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from vlm_analysis.edits.change import Change, is_whole
from vlm_analysis.edits.kinds.drop import Drop, check_layers
from vlm_analysis.edits.kinds.table import KINDS, kind_of
from vlm_analysis.edits.learnt import Learnt
from vlm_analysis.errors import EditError, MaskError, short
from vlm_analysis.model_info import MOST_LAYERS, ModelInfo
from vlm_analysis.words import brief, counted, some_of

KEY_DIGITS = 32  # of an edit's key, hexadecimal


@dataclass(frozen=True)
class Steps:
    """What an edited model runs. A variant is a hash of all changes to a part, "" where it is as in the dense model.

    Attributes:
        before: variant of what runs before the first layer: vision tower, projector, embeddings.
        layers: (layer, variant) in running order, without dropped layers. Layer numbers are those of the dense model.
        after: variant of what runs after the last layer: norm and head.
    """

    before: str
    layers: tuple[tuple[int, str], ...]
    after: str


@dataclass(frozen=True)
class Edit:
    """Changes to a model of `n_layers` decoder layers, in the order in which they are applied.

    Two edits are equal when they do the same; name, notes, model and provenance are not compared. Without changes it is the dense model.

    >>> edit = Edit(8, (Drop((5, 3)),))
    >>> edit.dropped, edit.kept, edit.budget, edit.ratio
    ((3, 5), (0, 1, 2, 4, 6, 7), 2, 0.25)
    >>> edit == PruneMask(8, [3]) + PruneMask(8, [5])
    True

    Raises:
        EditError: the changes do not fit the number of layers or contradict each other, or a kind is not in the table of kinds.
        MaskError: a drop of layers that the model does not have, or of all layers.
    """

    n_layers: int
    changes: tuple[Change, ...] = ()
    name: str = field(default="", kw_only=True, compare=False)
    notes: str = field(default="", kw_only=True, compare=False)
    model: ModelInfo | None = field(default=None, kw_only=True, compare=False)
    provenance: dict[str, Any] = field(default_factory=dict, kw_only=True, compare=False)

    def __repr__(self) -> str:
        name = [f"name={short(self.name, 40)!r}"] if self.name else []
        if self.is_mask:
            return f"PruneMask({', '.join((str(self.n_layers), f'[{some_of(map(str, self.dropped), 16)}]', *name))})"
        return brief(self, counted(self.n_layers, "layer"), self.words(), *name)

    def __post_init__(self) -> None:
        if not is_whole(self.n_layers) or not 1 <= self.n_layers <= MOST_LAYERS:
            raise MaskError(
                f"A mask needs the number of layers: expected a whole number in 1..{MOST_LAYERS}, got {self.n_layers!r}."
            )
        if any(0xD800 <= ord(character) <= 0xDFFF for character in self.name + self.notes):
            raise EditError("The name or notes of an edit hold half a character. Type them again.")
        object.__setattr__(self, "n_layers", int(self.n_layers))
        object.__setattr__(self, "changes", _in_order(self.changes))
        for change in self.changes:
            change.check(self.n_layers)
        _check_together(self.changes, self.n_layers)

    @cached_property
    def key(self) -> str:
        """Return a hash of the changes, 32 hexadecimal digits; scores and costs are kept under it."""
        content = {"n_layers": self.n_layers, "changes": [[change.kind, change.to_json()] for change in self.changes]}
        return _hash(content)

    @cached_property
    def steps(self) -> Steps:
        """Return what the edited model runs."""
        touched, gone = _touched(self.changes), set(self.gone)
        layers = tuple(
            (layer, _hash(touched[layer]) if layer in touched else "")
            for layer in range(self.n_layers)
            if layer not in gone
        )
        before = [(change.kind, change.before) for change in self.changes if change.before]
        after = [(change.kind, change.after) for change in self.changes if change.after]
        return Steps(_hash(before) if before else "", layers, _hash(after) if after else "")

    @cached_property
    def gone(self) -> tuple[int, ...]:
        """Return the layers that the edited model does not have, whichever change removed them, ascending."""
        touched = _touched(self.changes)
        return tuple(sorted(layer for layer, effects in touched.items() if any(text is None for _, text in effects)))

    @property
    def is_dense(self) -> bool:
        """Return whether there are no changes."""
        return not self.changes

    @cached_property
    def dropped(self) -> tuple[int, ...]:
        """Return the layers that are left out by a `Drop`, ascending."""
        return next((change.dropped for change in self.changes if isinstance(change, Drop)), ())

    @property
    def kept(self) -> tuple[int, ...]:
        gone = set(self.dropped)
        return tuple(layer for layer in range(self.n_layers) if layer not in gone)

    @property
    def budget(self) -> int:
        """Return the number of dropped layers."""
        return len(self.dropped)

    @property
    def ratio(self) -> float:
        """Return dropped layers over all layers, in [0, 1)."""
        return self.budget / self.n_layers

    @property
    def is_mask(self) -> bool:
        """Return whether the edit does nothing but drop layers; True for the dense model."""
        return all(isinstance(change, Drop) for change in self.changes)

    @property
    def chosen_on(self) -> frozenset[str]:
        """Return the fingerprints of the prompt sets that its provenance names."""
        return frozenset(_prompts_in(self.provenance))

    def refuses(self, model: ModelInfo) -> str:
        """Return why the edit cannot be applied to this model, "" where it can as far as `model` shows."""
        if model.n_layers != self.n_layers:
            return f"The mask does not fit the model: expected one for {model.n_layers} layers, got one for {self.n_layers}."
        gone = (Drop(self.gone),)  # whichever change removed them, and together
        return next(filter(None, (change.refuses(model) for change in (*gone, *self.changes))), "")

    def words(self) -> str:
        """Return what the edit does, for a sentence: "drops layers 3 and 5"."""
        return " and ".join(change.words() for change in self.changes) or "changes nothing"

    def saved_parameters(self, model: ModelInfo) -> int:
        """Return how many parameters a checkpoint saves, of a model with counted parameters."""
        return sum(change.saved_parameters(model) for change in self.changes)

    def __add__(self, other: Edit) -> Edit:
        """Return an Edit with the changes of both; name, notes, model and provenance are those of this one.

        Raises:
            EditError: the two are of different numbers of layers, or contradict each other, or a change was learnt on another edit than
                it would then belong to. `Edit(n_layers, changes)` puts any together.
        """
        if not isinstance(other, Edit):
            return NotImplemented
        if other.n_layers != self.n_layers:
            raise EditError(
                f"The edits are of different models: expected two of {self.n_layers} layers, got one of {other.n_layers}. "
                "Take edits of one model."
            )
        both = replace(self, changes=(*self.changes, *other.changes))
        for change in both.changes:
            if isinstance(change, Learnt) and change.learnt_on not in ("", (base := both.before(change)).key):
                raise EditError(
                    f"The edits do not add up: expected a change that {change.words()} to stay with the edit that it was learnt on "
                    f"({change.learnt_on[:8]}), got one that {base.words()}. Learn it anew for both."
                )
        return both

    def before(self, change: Change | type[Change]) -> Edit:
        """Return the edit of the changes that are applied before those of this kind: what a learnt change of it is learnt on."""
        order = list(KINDS)
        earlier = order[: order.index(change.kind)]
        return replace(self, changes=tuple(other for other in self.changes if other.kind in earlier))


def PruneMask(  # noqa: N802 - the word for the everyday Edit
    n_layers: int,
    dropped: Collection[int] = (),
    *,
    name: str = "",
    notes: str = "",
    model: ModelInfo | None = None,
    provenance: dict[str, Any] | None = None,
) -> Edit:
    """Return the Edit that drops these of `n_layers` decoder layers, counted from 0; without any, the dense model.

    >>> PruneMask(8, [5, 3]) == Edit(8, (Drop((3, 5)),))
    True

    Raises:
        MaskError: an index that is not a whole number in 0..n_layers-1 or is repeated, or no layer left.
    """
    if is_whole(n_layers):
        check_layers(dropped, n_layers)
    origin = {} if provenance is None else provenance
    return Edit(n_layers, (Drop(tuple(dropped)),), name=name, notes=notes, model=model, provenance=origin)


def check_edit(edit: object, n_layers: int) -> None:
    """Check that `edit` is an Edit.

    Raises:
        EditError: it is not; the message says what to write.
    """
    if not isinstance(edit, Edit):
        raise EditError(
            f"There is no edit: expected an Edit, got a {type(edit).__name__}. Write PruneMask({n_layers}, layers)."
        )


def only_mask(edit: Edit, failed: str) -> Edit:
    """Return the edit if it is a mask.

    Raises:
        MaskError: it does more than drop layers; the message begins with what `failed`.
    """
    if not edit.is_mask:
        raise MaskError(
            f"{failed}: expected an edit that only drops decoder layers, got one that {edit.words()}. Use it as an edit."
        )
    return edit


def mask_key(n_layers: int, dropped: Collection[int]) -> str:
    """Return the key of the mask that drops these layers, without making it: lists of thousands of saved masks ask for theirs.

    >>> mask_key(8, [5, 3]) == PruneMask(8, [3, 5]).key
    True
    """
    changes = [[Drop.kind, {"layers": sorted(dropped)}]] if dropped else []
    return _hash({"n_layers": n_layers, "changes": changes})


def changes_to_json(edit: Edit) -> list[dict[str, Any]]:
    """Return the changes as JSON values."""
    return [{"kind": change.kind, **change.to_json()} for change in edit.changes]


def changes_from_json(content: Any) -> tuple[Change, ...]:
    """Return the changes that `changes_to_json` wrote.

    Raises:
        EditError: the content is not a list of changes.
    """
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise EditError(
            f"An edit is damaged: expected a list of changes, got {str(content)[:200]}. Put its own file back."
        )
    changes = []
    for one in content:
        kind = kind_of(one.get("kind"))
        try:
            changes.append(kind.from_json({name: value for name, value in one.items() if name != "kind"}))
        except EditError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise EditError(
                f"An edit is damaged: expected a change of the kind {kind.kind!r}, got an error at {str(error)[:200]}. "
                "Put its own file back."
            ) from error
    return tuple(changes)


def _in_order(changes: Collection[Change]) -> tuple[Change, ...]:
    """Return the changes in the order of the table, then of their layers, merged by kind where possible."""
    if isinstance(changes, Change):
        raise EditError(
            f"An edit takes a tuple of changes: expected ({type(changes).__name__}(…),), got the change alone."
        )
    order = list(KINDS.values())
    by_kind: dict[type[Change], list[Change]] = {}
    for change in changes:
        if KINDS.get(getattr(change, "kind", "")) is not type(change):
            raise EditError(
                f"Unknown kind of change: expected one of {', '.join(KINDS)}, got a {type(change).__name__}. "
                "Add it to the table of kinds, under its `kind`."
            )
        same = by_kind.setdefault(type(change), [])
        both = same[-1].merged(change) if same else None
        same[-1:] = [both] if both is not None else [*same[-1:], change]
    joined = [change for same in by_kind.values() for change in same]
    gone = {layer for change in joined for layer, text in change.layers.items() if text is None}
    in_effect = [left for change in joined if not (left := change.without(gone).beside(joined)).is_empty]
    return tuple(sorted(in_effect, key=lambda change: (order.index(type(change)), sorted(change.layers))))


def _touched(changes: Collection[Change]) -> dict[int, list[tuple[str, str | None]]]:
    """Return the effects on each changed layer: (kind, text) of each change, in order."""
    effects: dict[int, list[tuple[str, str | None]]] = {}
    for change in changes:
        for layer, text in change.layers.items():
            effects.setdefault(layer, []).append((change.kind, text))
    return effects


def _check_together(changes: Collection[Change], n_layers: int) -> None:
    """Raise EditError for changes of layers that do not exist, or that contradict each other."""
    for layer, effects in _touched(changes).items():
        if not is_whole(layer) or not 0 <= layer < n_layers:
            raise EditError(f"No such layer to change: expected whole numbers 0..{n_layers - 1}, got {layer!r}.")
        kinds = [kind for kind, _ in effects]
        if len(set(kinds)) < len(kinds):
            raise EditError(
                f"Layer {layer} is changed twice: expected one {kinds[0]!r} for it, got {len(kinds)}. Take one of them."
            )
        if len(effects) > 1 and any(text is None for _, text in effects):
            raise EditError(
                f"The changes contradict each other: layer {layer} is left out and changed ({', '.join(kinds)}). Take one of them out."
            )
    for kind, other in pairwise(changes):
        if type(kind) is type(other) and not kind.layers and not other.layers:
            raise EditError(f"There are two changes of the kind {kind.kind!r}: expected one. Take one of them.")


def _plain(value: Any) -> Any:
    """Return a numpy number as a Python number."""
    return value.item()


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def _prompts_in(provenance: Any) -> Iterator[str]:
    if isinstance(provenance, Mapping):
        for name, value in provenance.items():
            if name in ("prompts", "recording_prompts", "damage_prompts") and isinstance(value, str):
                yield value
            yield from _prompts_in(value)
