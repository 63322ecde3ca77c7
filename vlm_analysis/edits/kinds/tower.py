"""Tower: leaves layers of the vision encoder out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis import words
from vlm_analysis.edits.change import Change, is_whole
from vlm_analysis.edits.kinds.vision import layers_of
from vlm_analysis.errors import EditError, short
from vlm_analysis.model_info import MOST_LAYERS, ModelInfo

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View


@dataclass(frozen=True)
class Tower(Change):
    """Leaves layers of the vision encoder out: each hands on what it is given, at no cost.

    Numbers in the model's configuration that name its layers move with them (see `models.tower`). Decoder layers stay as they are, but
    what they are given differs: edits share layers in a sweep only where their towers are equal.

    Args:
        n_layers: of the vision encoder.
        dropped: those that are left out, counted from 0.

    >>> Tower(24, (22, 5)).words()
    'drops layers 5 and 22 of the vision encoder'

    Raises:
        EditError: a number that is no layer or is named twice, or no layer is left.
    """

    kind: ClassVar[str] = "tower"
    owns_tensors: ClassVar[bool] = False

    n_layers: int
    dropped: tuple[int, ...]

    def __post_init__(self) -> None:
        if not is_whole(self.n_layers) or not 1 <= self.n_layers <= MOST_LAYERS:
            raise EditError(
                f"A tower needs the number of its layers: expected a whole number in 1..{MOST_LAYERS}, got "
                f"{short(repr(self.n_layers), 80)}. Take it from the model's info (`loaded.info.tower.n_layers`)."
            )
        object.__setattr__(self, "n_layers", int(self.n_layers))
        object.__setattr__(self, "dropped", layers_of(self.dropped, "Tower(24, (5, 22))"))
        if self.dropped and self.dropped[-1] >= self.n_layers:
            raise EditError(
                f"No such layer of the vision encoder: expected whole numbers 0..{self.n_layers - 1}, got {self.dropped[-1]}. "
                "Name its layers."
            )
        if len(self.dropped) == self.n_layers:
            raise EditError(
                f"A vision encoder must keep a layer: expected one of {self.n_layers} to stay, got none. Take one out."
            )

    @property
    def kept(self) -> tuple[int, ...]:
        """Return the layers that stay, ascending."""
        gone = set(self.dropped)
        return tuple(layer for layer in range(self.n_layers) if layer not in gone)

    @property
    def layers(self) -> Mapping[int, str | None]:
        """Return no decoder layer: none is changed."""
        return {}

    @property
    def before(self) -> str:
        return f"{self.n_layers} without {','.join(map(str, self.dropped))}" if self.dropped else ""

    def refuses(self, model: ModelInfo) -> str:
        tower = model.tower
        if tower is None or not self.dropped:
            return ""
        if tower.missing:
            return f"No layer of the vision encoder can be dropped: {tower.missing}. Leave it whole."
        if tower.n_layers != self.n_layers:
            return (
                f"The edit does not fit the model: expected one for a vision encoder of {tower.n_layers} layers, got one for "
                f"{self.n_layers}. Take an edit of this model."
            )
        for layer, reason in tower.locked.items():
            if layer in self.dropped:
                return f"Layer {layer} of the vision encoder cannot be dropped: {reason}. Take it out of the edit."
        return ""

    def saved_parameters(self, model: ModelInfo) -> int:
        """Return the parameters of the dropped layers; 0 where the model's tower is not known."""
        counts = () if model.tower is None else model.tower.layer_parameters
        return sum(counts[layer] for layer in self.dropped if layer < len(counts))

    def merged(self, other: Self) -> Self:
        """Return both: what either drops goes.

        Raises:
            EditError: they are of two numbers of layers.
        """
        if self.n_layers != other.n_layers:
            raise EditError(
                f"The changes contradict each other: expected towers of {self.n_layers} layers, got one of {other.n_layers}. Take one."
            )
        return type(self)(self.n_layers, tuple({*self.dropped, *other.dropped}))

    def apply(self, view: View) -> None:
        """Leave the layers out of the view's list, and fit its configuration.

        Raises:
            EditError: the model has no such vision encoder.
        """
        from vlm_analysis.edits.towers import drop_from_tower

        drop_from_tower(view, self.n_layers, self.kept)

    def words(self) -> str:
        return f"drops {words.layers(self.dropped)} of the vision encoder"

    def to_json(self) -> dict[str, Any]:
        return {"n_layers": self.n_layers, "dropped": list(self.dropped)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        if not isinstance(content["dropped"], list):
            raise EditError(
                f"An edit is damaged: expected a list of layers as 'dropped', got {short(repr(content['dropped']), 200)}. "
                "Put its own file back."
            )
        return cls(content["n_layers"], tuple(content["dropped"]))


def tower_dropped(changes: Collection[Change]) -> tuple[int, ...]:
    """Return the layers of the vision encoder that these changes drop, ascending."""
    return next((change.dropped for change in changes if isinstance(change, Tower)), ())
