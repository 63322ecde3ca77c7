"""Narrow: keeps some of the MLP neurons and attention groups of layers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis import words
from vlm_analysis.edits.change import Change, is_whole
from vlm_analysis.edits.kinds.drop_part import ATTENTION, MLP, DropPart
from vlm_analysis.errors import EditError, short
from vlm_analysis.model_info import MOST_LAYERS, ModelInfo

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View

SMALL, ZEROED = "small", "zeroed"
FORMS = (SMALL, ZEROED)
NOUNS = {"neurons": "MLP neuron", "kv_groups": "attention group"}
MOST_KEPT = 20_000_000  # numbers in one change; the largest open model has 7 million MLP neurons

Kept = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Narrow(Change):
    """Keeps some MLP neurons and attention groups of decoder layers (width pruning, as in µCRASP, arXiv:2605.25842).

    A neuron is a row of the gate and of the up-projection with its column of the down-projection; an attention group is a key-value head
    with its query heads. A layer that is not named keeps all of them. Numbers count from 0 and are those of the dense model.

    Args:
        neurons: by layer the MLP neurons that stay, ascending; kept as pairs of layer and numbers, ascending, as the next.
        kv_groups: by layer the attention groups that stay.
        form: how it is run. "small" cuts the weights, which is what makes it fast; "zeroed" keeps their shapes and writes zeros, for
            classes that load no such widths. Logits of both are equal within 1e-5 in float32.

    >>> change = Narrow({2: [0, 1, 2, 7]}, {2: [0]})
    >>> change.neurons, change.words()
    (((2, (0, 1, 2, 7)),), 'keeps 4 MLP neurons of layer 2 and 1 attention group of layer 2')
    >>> change.to_json()["neurons"]
    {'2': '0-2,7'}

    Raises:
        EditError: a layer or number that is not whole, below 0 or repeated, a layer that keeps none, or an unknown form.
    """

    kind: ClassVar[str] = "narrow"

    neurons: Kept = ()  # type: ignore[bad-override]
    kv_groups: Kept = ()
    form: str = field(default=SMALL, kw_only=True)

    def __init__(
        self,
        neurons: Mapping[int, Sequence[int]] | Kept = (),
        kv_groups: Mapping[int, Sequence[int]] | Kept = (),
        *,
        form: str = SMALL,
    ) -> None:
        if form not in FORMS:
            raise EditError(
                f"Unknown form of narrow layers: expected one of {', '.join(FORMS)}, got {short(repr(form), 80)}. Name one of them."
            )
        object.__setattr__(self, "neurons", _kept(neurons, "neurons"))
        object.__setattr__(self, "kv_groups", _kept(kv_groups, "kv_groups"))
        object.__setattr__(self, "form", form)

    def __repr__(self) -> str:
        return words.brief(self, self.words())

    @cached_property
    def _texts(self) -> Mapping[str, Mapping[int, str]]:
        """Return the kept numbers of each part and layer as text."""
        return {name: {layer: as_runs(kept) for layer, kept in getattr(self, name)} for name in NOUNS}

    @cached_property
    def _sizes(self) -> Mapping[str, Mapping[int, int]]:
        """Return how many numbers of each part and layer are kept."""
        return {name: {layer: len(kept) for layer, kept in getattr(self, name)} for name in NOUNS}

    @property
    def layers(self) -> Mapping[int, str | None]:
        of_layer: dict[int, str] = {}
        for name, texts in self._texts.items():
            for layer, text in texts.items():
                of_layer[layer] = f"{of_layer.get(layer, self.form)}; {name} {text}"
        return dict(sorted(of_layer.items()))

    @property
    def uniform(self) -> bool:
        """Return whether all the layers that it names keep the same number of neurons, and the same number of attention groups."""
        return self.uniform_in({*self.layers})

    def uniform_in(self, layers: Collection[int]) -> bool:
        """Return whether these layers, which are those of the edited model, keep the same number of neurons and of groups.

        A part that no layer narrows is the same in all; one that some of them narrow is not.
        """
        parts = (sizes for sizes in self._sizes.values() if sizes)
        return all(len({sizes.get(layer, 0) for layer in layers}) <= 1 for sizes in parts)

    def refuses(self, model: ModelInfo) -> str:
        for name, noun in NOUNS.items() if model.widths else ():
            for layer, kept in getattr(self, name):
                width = model.widths[layer]
                n, reason = (
                    (width.neurons, width.mlp_locked)
                    if name == "neurons"
                    else (width.kv_groups, width.attention_locked)
                )
                if reason:
                    what = "MLP" if name == "neurons" else "attention"
                    return f"The {what} of layer {layer} cannot be made narrow: {reason}. Leave it whole."
                if kept[-1] >= n:
                    return f"Layer {layer} cannot be made narrow: expected {noun}s 0..{n - 1}, got {kept[-1]}. Name its own."
        return ""

    def saved_by_layer(self, model: ModelInfo) -> Mapping[int, int]:
        """Return how many parameters of each layer a checkpoint saves; nothing where they are zeroed or the model's widths not known."""
        saved = dict.fromkeys(self.layers if self.form == SMALL and model.widths else (), 0)
        for layer in saved:
            width = model.widths[layer]
            if layer in self._sizes["neurons"]:
                saved[layer] += (width.neurons - self._sizes["neurons"][layer]) * width.neuron_parameters
            if layer in self._sizes["kv_groups"]:
                saved[layer] += (width.kv_groups - self._sizes["kv_groups"][layer]) * width.group_parameters
        return saved

    def attention_shares(self, model: ModelInfo) -> Mapping[int, float]:
        if self.form == ZEROED or not model.widths:
            return {}
        return {layer: left / model.widths[layer].kv_groups for layer, left in self._sizes["kv_groups"].items()}

    def unserved(self, layers: Collection[int]) -> str:
        if self.form == ZEROED or self.uniform_in(layers):
            return ""
        return "stock classes build all layers equally wide (zeroed, they keep the dense shapes)"

    def without(self, layers: Collection[int]) -> Self:
        """Return what is left of it where another change drops these layers."""
        gone = set(layers)
        if not any(gone & sizes.keys() for sizes in self._sizes.values()):
            return self
        left = {name: tuple(pair for pair in getattr(self, name) if pair[0] not in gone) for name in NOUNS}
        return replace(self, **left)

    def beside(self, others: Collection[Change]) -> Self:
        """Return what is left of it where a `DropPart` leaves out the MLP of layers, or their attention."""
        gone = [change for change in others if isinstance(change, DropPart)]
        mlp, attention = ({layer for one in gone for layer in getattr(one, part)} for part in (MLP, ATTENTION))
        neurons = tuple(pair for pair in self.neurons if pair[0] not in mlp)
        return replace(
            self, neurons=neurons, kv_groups=tuple(pair for pair in self.kv_groups if pair[0] not in attention)
        )

    def merged(self, other: Self) -> Self:
        """Return both: what both keep stays.

        Raises:
            EditError: they are of two forms, or nothing of a layer is kept by both.
        """
        if self.form != other.form:
            raise EditError("Layers are narrow in two ways: expected one form, got small and zeroed. Take one.")
        both = {name: _in_both(getattr(self, name), getattr(other, name)) for name in NOUNS}
        return replace(self, **both)

    def apply(self, view: View) -> None:
        """Cut the weights of the view's layers, or write zeros into them.

        Raises:
            EditError: a layer's weights cannot be cut, with the reason, or it has no such neuron or group.
            ModelError: a weight's numbers are nowhere.
        """
        from vlm_analysis.edits.narrowing import fit_config, narrow_layer

        neurons, kv_groups = dict(self.neurons), dict(self.kv_groups)
        for layer in self.layers:
            narrow_layer(view, layer, neurons.get(layer), kv_groups.get(layer), small=self.form == SMALL)
        if self.form == SMALL:
            fit_config(view.model)

    def words(self) -> str:
        parts = [_said(dict(getattr(self, name)), noun) for name, noun in NOUNS.items() if getattr(self, name)]
        return "keeps " + " and ".join(parts) + (" (zeroed)" if self.form == ZEROED else "")

    def to_json(self) -> dict[str, Any]:
        kept = {name: {str(layer): text for layer, text in texts.items()} for name, texts in self._texts.items()}
        return {**kept, "form": self.form}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        kept: dict[str, dict[int, Sequence[int]]] = {}
        left = MOST_KEPT
        for name in NOUNS:
            kept[name] = {}
            for layer, text in content[name].items():
                numbers = from_runs(text, left)
                kept[name][int(layer)] = numbers
                left -= len(numbers)
        return cls(**kept, form=content["form"])


def as_runs(numbers: Iterable[int]) -> str:
    """Return ascending numbers as text, with a range for each run.

    >>> as_runs((0, 1, 2, 7))
    '0-2,7'
    """
    runs = words.consecutive(numbers)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def from_runs(text: Any, most: int = MOST_KEPT) -> tuple[int, ...]:
    """Return the numbers of a text that `as_runs` wrote.

    Raises:
        EditError: the text is none, or has more than `most` numbers.
    """
    numbers: list[int] = []
    for run in text.split(",") if isinstance(text, str) else ("",):
        first, dash, last = run.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdecimal() and len(end) < 10 for end in ends):
            raise EditError(
                f"An edit is damaged: expected numbers as in '0-99,105', got {short(repr(run), 80)}. Put its own file back."
            )
        span = range(int(ends[0]), int(ends[1]) + 1)
        if len(numbers) + len(span) > most:
            raise EditError(
                f"An edit keeps too much: expected at most {MOST_KEPT:,} numbers, got more. Put its own file back."
            )
        numbers.extend(span)
    return tuple(numbers)


def _kept(given: Any, name: str) -> Kept:
    """Return what each layer keeps as ascending pairs; raises EditError where it is no such thing."""
    pairs = given.items() if isinstance(given, Mapping) else given
    try:
        by_layer = dict(pairs)
    except (TypeError, ValueError):
        raise EditError(
            f"Nothing says what layers keep: expected numbers by layer, as in Narrow({name}={{3: [0, 1]}}), got "
            f"{short(repr(given), 200)}. Write them so."
        ) from None
    for layer in by_layer:
        if not is_whole(layer) or not 0 <= layer < MOST_LAYERS:
            raise EditError(
                f"No such layer: expected whole numbers from 0 on, got {short(repr(layer), 200)}. Name layers of the model."
            )
    return tuple((int(layer), _numbers(by_layer[layer], layer, NOUNS[name])) for layer in sorted(by_layer))


def _numbers(given: Any, layer: int, noun: str) -> tuple[int, ...]:
    """Return numbers ascending; raises EditError where they are none, or there are none."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, str) or not isinstance(given, Collection) or not given:
        raise EditError(
            f"Layer {layer} keeps no {noun}: expected the numbers of one or more, got {short(repr(given), 200)}. Keep one, or leave "
            "the layer out."
        )
    for number in given:
        if (type(number) is not int and not is_whole(number)) or number < 0:
            raise EditError(
                f"No such {noun} of layer {layer}: expected whole numbers from 0 on, got {short(repr(number), 200)}. Name its own."
            )
    if len(set(given)) != len(given):
        raise EditError(
            f"Layer {layer} keeps each {noun} once: expected different numbers, got one twice. Take it out."
        )
    return tuple(sorted(map(int, given)))


def _in_both(one: Kept, other: Kept) -> dict[int, Sequence[int]]:
    """Return by layer what both keep; a layer that one of them does not name keeps what the other says."""
    kept: dict[int, Sequence[int]] = dict(one)
    for layer, numbers in other:
        kept[layer] = sorted({*numbers} & {*kept[layer]}) if layer in kept else numbers
        if not kept[layer]:
            raise EditError(
                f"The changes contradict each other: expected something of layer {layer} that both keep, got nothing. Take one of them."
            )
    return kept


def _said(kept: Mapping[int, Sequence[int]], noun: str) -> str:
    """Return "40 to 60 MLP neurons of each of 14 layers"."""
    least, most = min(map(len, kept.values())), max(map(len, kept.values()))
    number = f"{least:,} to {words.counted(most, noun)}" if least < most else words.counted(most, noun)
    where = words.layers(kept) if len(kept) <= 4 else words.counted(len(kept), "layer")
    return f"{number} of {'each of ' if len(kept) > 1 else ''}{where}"
