"""Vision: vision tokens skip decoder layers, while text runs through all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis import words
from vlm_analysis.edits.change import Change, is_whole
from vlm_analysis.errors import EditError, short
from vlm_analysis.model_info import MOST_LAYERS, ModelInfo

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View

MASKED, SLICED = "masked", "sliced"
FORMS = (MASKED, SLICED)


@dataclass(frozen=True)
class Vision(Change):
    """Vision tokens skip layers; positions are not renumbered.

    Args:
        absent: layers in which text does not see vision tokens, whose states pass unchanged.
        frozen: layers in which text sees vision tokens, whose states pass unchanged (ShortV, arXiv:2504.00502).
        form: how it is run. "masked" hides the tokens by the attention mask and computes as much as the dense model; "sliced" takes them
            out of the layer and of its cache, which is what makes it fast. Text logits of both are equal within 1e-5 in float32.
        deepstack: whether features that the model adds to vision tokens between layers (DeepStack) are added after these layers too.

    >>> Vision(absent=(15, 14)).words()
    'hides vision tokens in layers 14-15'

    Raises:
        EditError: a number that is no layer or is named twice, or an unknown form.
    """

    kind: ClassVar[str] = "vision"
    owns_tensors: ClassVar[bool] = False
    reason_not_served: ClassVar[str] = "stock classes run every layer on all tokens"

    absent: tuple[int, ...] = ()
    frozen: tuple[int, ...] = ()
    form: str = field(default=MASKED, kw_only=True)
    deepstack: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("absent", "frozen"):
            object.__setattr__(self, name, layers_of(getattr(self, name), f"Vision({name}=(3, 5))"))
        both = sorted({*self.absent} & {*self.frozen})
        if both:
            raise EditError(
                f"Vision tokens cannot be both absent and frozen in a layer: expected one of the two, got {words.layers(both)} in both. "
                "Take one."
            )
        if self.form not in FORMS:
            raise EditError(
                f"Unknown form of an edit of vision tokens: expected one of {', '.join(FORMS)}, got {short(repr(self.form), 80)}. "
                "Name one of them."
            )
        if not isinstance(self.deepstack, bool):
            raise EditError(
                f"Whether DeepStack features are added is unknown: expected true or false, got {short(repr(self.deepstack), 60)}. Say so."
            )

    @property
    def layers(self) -> Mapping[int, str | None]:
        how = self.form if self.deepstack else f"{self.form}, no DeepStack"
        return dict.fromkeys(self.absent, f"absent, {how}") | dict.fromkeys(self.frozen, f"frozen, {how}")

    def refuses(self, model: ModelInfo) -> str:
        for layer in sorted(self.layers):
            if layer in model.vision_locked:
                return (
                    f"Vision tokens cannot skip layer {layer}: {model.vision_locked[layer]}. Take it out of the edit."
                )
        return ""

    def without(self, layers: Collection[int]) -> Self:
        kept = {name: tuple(set(getattr(self, name)) - set(layers)) for name in ("absent", "frozen")}
        return replace(self, **kept)

    def merged(self, other: Self) -> Self:
        if (self.form, self.deepstack) != (other.form, other.deepstack):
            raise EditError(
                "Vision tokens skip layers in two ways: expected one form, and DeepStack features added or not, got both. Take one."
            )
        absent, frozen = ({*getattr(self, name), *getattr(other, name)} for name in ("absent", "frozen"))
        return replace(self, absent=tuple(absent), frozen=tuple(frozen))

    def apply(self, view: View) -> None:
        """Make the view's layers leave out vision tokens.

        Raises:
            EditError: DeepStack features are to be left out, and this model adds none or adds them elsewhere.
        """
        from vlm_analysis.edits.tokens.skip import skip_layers
        from vlm_analysis.models.layers import find_decoder_path

        absent, frozen = ([view.place(layer) for layer in layers] for layers in (self.absent, self.frozen))
        path, _ = find_decoder_path(view.model)
        skip_layers(view.model, path, absent, frozen, sliced=self.form == SLICED, deepstack=self.deepstack)

    def words(self) -> str:
        parts = [f"hides vision tokens in {_span(self.absent)}"] if self.absent else []
        parts += [f"freezes vision tokens in {_span(self.frozen)}"] if self.frozen else []
        ending = ("" if self.deepstack else " without DeepStack") + (" (sliced)" if self.form == SLICED else "")
        return " and ".join(parts) + ending

    def to_json(self) -> dict[str, Any]:
        return {
            "absent": list(self.absent),
            "frozen": list(self.frozen),
            "form": self.form,
            "deepstack": self.deepstack,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        for name in ("absent", "frozen"):
            if not isinstance(content[name], list):
                raise EditError(
                    f"An edit is damaged: expected a list of layers as {name!r}, got {short(content[name], 200)}. Put its own file back."
                )
        return cls(
            tuple(content["absent"]),
            tuple(content["frozen"]),
            form=content["form"],
            deepstack=content["deepstack"],
        )


def layers_of(layers: Any, example: str) -> tuple[int, ...]:
    """Return layer numbers ascending; raises EditError where they are none, or one is named twice."""
    if isinstance(layers, str) or not isinstance(layers, Collection):
        raise EditError(
            f"No such layers: expected their numbers, as in {example}, got {short(repr(layers), 200)}. Write them so."
        )
    for layer in layers:
        if not is_whole(layer) or not 0 <= layer < MOST_LAYERS:
            raise EditError(
                f"No such layer: expected whole numbers from 0 on, got {short(repr(layer), 200)}. Name layers of the model."
            )
    if len(set(layers)) != len(layers):
        raise EditError(
            f"An edit names each layer once: expected different numbers, got {sorted(layers)}. Take one out."
        )
    return tuple(sorted(int(layer) for layer in layers))


def _span(layers: Iterable[int]) -> str:
    """Return "layer 4", or "layers 0-3 and 7"."""
    ordered = list(layers)
    said = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in words.consecutive(ordered)]
    return f"layer{'' if len(ordered) == 1 else 's'} {words.joined(said)}"
