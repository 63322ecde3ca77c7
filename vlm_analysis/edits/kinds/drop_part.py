"""DropPart: leaves the attention or the MLP of layers out; the stream passes it unchanged."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis import words
from vlm_analysis.edits.change import Change
from vlm_analysis.edits.kinds.vision import layers_of
from vlm_analysis.errors import EditError
from vlm_analysis.model_info import ModelInfo

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View

ATTENTION, MLP = "attention", "mlp"
PARTS = (ATTENTION, MLP)
TITLES = {ATTENTION: "attention", MLP: "MLP"}


@dataclass(frozen=True)
class DropPart(Change):
    """Leaves parts of layers out (LLM-Drop, arXiv:2406.15786): what is left of the layer gets the stream as it was.

    A layer without attention caches no keys and values; where transformers counts tokens by its cache, one number a token stays there.

    Args:
        attention: layers without attention.
        mlp: layers without MLP. A layer without both does nothing: drop it (`drop_parts` does).

    >>> DropPart(attention=(5, 3), mlp=(7,)).words()
    'leaves out the attention of layers 3 and 5 and the MLP of layer 7'

    Raises:
        EditError: a number that is no layer or is named twice, or a layer in both.
    """

    kind: ClassVar[str] = "drop-part"
    owns_tensors: ClassVar[bool] = False
    reason_not_served: ClassVar[str] = (
        "models of transformers run attention and MLP of every layer (they save `skip` of `per_layer_config`, and do not read it)"
    )

    attention: tuple[int, ...] = ()
    mlp: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in PARTS:
            object.__setattr__(self, name, layers_of(getattr(self, name), f"DropPart({name}=(3, 5))"))
        if both := {*self.attention} & {*self.mlp}:
            raise EditError(
                f"Nothing is left of {words.layers(both)}: expected attention or MLP to be left out, got both. Drop the layer, as "
                "`drop_parts` does."
            )

    @property
    def layers(self) -> Mapping[int, str | None]:
        return dict.fromkeys(self.attention, "no attention") | dict.fromkeys(self.mlp, "no MLP")

    def refuses(self, model: ModelInfo) -> str:
        for layer in self.attention:
            reason = model.locked.get(layer, "")
            if model.attention_layers and layer not in model.attention_layers:
                reason = "it mixes tokens through a state, and has no attention"
            if layer in model.cross_attention_layers:
                reason = "it brings the image in by cross-attention; drop the layer instead"
            if reason:
                return f"The attention of layer {layer} cannot be left out: {reason}. Take it out of the edit."
        return ""

    def saved_by_layer(self, model: ModelInfo) -> Mapping[int, int]:
        """Return the parameters of the parts that are left out, by layer; nothing where the model's widths are not known."""
        if not model.widths:
            return {}
        saved = {layer: model.widths[layer].attention_parameters for layer in self.attention}
        return saved | {layer: model.widths[layer].mlp_parameters for layer in self.mlp}

    def attention_shares(self, model: ModelInfo) -> Mapping[int, float]:
        return dict.fromkeys(self.attention if model.widths else (), 0.0)

    def without(self, layers: Collection[int]) -> Self:
        return replace(self, **{part: tuple(set(getattr(self, part)) - set(layers)) for part in PARTS})

    def merged(self, other: Self) -> Self:
        return type(self)(*(tuple({*getattr(self, part), *getattr(other, part)}) for part in PARTS))

    def apply(self, view: View) -> None:
        """Put something in the place of each part that adds nothing.

        Raises:
            EditError: a layer has no such part, or its parts do not add to the stream by themselves.
        """
        from vlm_analysis.edits.parts import leave_out

        for part in PARTS:
            for layer in getattr(self, part):
                leave_out(view, layer, part)

    def words(self) -> str:
        named = ((TITLES[part], getattr(self, part)) for part in PARTS)
        return f"leaves out {words.joined(f'the {title} of {words.layers(of)}' for title, of in named if of)}"

    def to_json(self) -> dict[str, Any]:
        return {part: list(getattr(self, part)) for part in PARTS}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        for part in PARTS:
            if not isinstance(content[part], list):
                raise EditError(
                    f"An edit is damaged: expected a list of layers as {part!r}, got {str(content[part])[:200]}. Put its own file back."
                )
        return cls(tuple(content[ATTENTION]), tuple(content[MLP]))
