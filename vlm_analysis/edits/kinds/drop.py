"""Drop: leaves decoder layers out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis import words
from vlm_analysis.edits.change import Change, is_whole
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import ModelInfo

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View


@dataclass(frozen=True)
class Drop(Change):
    """Leaves decoder layers out; numbers count from 0.

    >>> Drop([5, 3]).dropped
    (3, 5)

    Raises:
        MaskError: a number that is not whole, below 0 or repeated.
    """

    kind: ClassVar[str] = "drop"

    dropped: tuple[int, ...]

    def __post_init__(self) -> None:
        if isinstance(self.dropped, str) or not isinstance(self.dropped, Collection):
            raise MaskError(
                f"No layers to drop: expected their numbers, as in Drop((3, 5)), got {str(self.dropped)[:200]!r}."
            )
        layers = tuple(self.dropped)
        check_layers(layers)
        if len(set(layers)) != len(layers):
            raise MaskError(f"A mask names each layer once, got {sorted(layers)}.")
        object.__setattr__(self, "dropped", tuple(sorted(int(layer) for layer in layers)))

    @property
    def layers(self) -> Mapping[int, str | None]:
        return dict.fromkeys(self.dropped)

    def check(self, n_layers: int) -> None:
        check_layers(self.dropped, n_layers)
        if len(self.dropped) == n_layers:
            raise MaskError(f"A mask must keep at least one layer: all {n_layers} are dropped.")

    def refuses(self, model: ModelInfo) -> str:
        for layer, reason in model.locked.items():
            if layer in self.dropped:
                return f"Layer {layer} cannot be dropped: {reason}. Take it out of the mask."
        kept = [layer for layer in range(model.n_layers) if layer not in self.dropped]
        attention = model.attention_layers
        if attention and not set(attention) & set(kept):
            return (
                f"The mask drops every attention layer ({', '.join(map(str, attention))}) of a hybrid stack: expected one to stay, "
                "as the cache counts its tokens there. Take one out of the mask."
            )
        if self.dropped and kept[0] in model.cross_attention_layers:
            return (
                f"The mask leaves layer {kept[0]} first, a cross-attention layer: expected a self-attention layer first, as the "
                "cache counts its tokens there and would count the image's instead. Take an earlier layer out of the mask."
            )
        return ""

    def apply(self, view: View) -> None:
        """Do nothing: a view is made without the dropped layers."""

    def merged(self, other: Self) -> Self:
        return type(self)(tuple({*self.dropped, *other.dropped}))

    def words(self) -> str:
        return f"drops {words.layers(self.dropped)}"

    def to_json(self) -> dict[str, Any]:
        return {"layers": list(self.dropped)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        if not isinstance(content["layers"], list):
            raise MaskError(f"A mask is damaged: expected a list of layers, got {str(content['layers'])[:200]}.")
        return cls(tuple(content["layers"]))


def check_layers(layers: Collection[object], n_layers: int | None = None) -> None:
    """Check that these are layer numbers, counted from 0 and below `n_layers` where that is known.

    Raises:
        MaskError: one is not; the message names the first.
    """
    if not isinstance(layers, Collection) or isinstance(layers, str):
        raise MaskError(
            f"No such layers to drop: expected several whole numbers, as in [5, 3], got {str(layers)[:200]!r}."
        )
    for layer in layers:
        if not is_whole(layer) or layer < 0 or (n_layers is not None and layer >= n_layers):  # type: ignore[operator]
            those = "from 0 on" if n_layers is None else f"0..{n_layers - 1}"
            raise MaskError(f"No such layer to drop: expected whole numbers {those}, got {repr(layer)[:200]}.")
