"""The Change: one thing that is done to a model. Every kind is one file in `kinds`, and one row of the table there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis.model_info import ModelInfo

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View


class Change(ABC):
    """One thing that is done to a model, as a value: kinds are frozen dataclasses whose fields are plain and hashable.

    What a kind must say is abstract here; the rest has a default that holds for most.

    Attributes:
        kind: the word for it in files.
        reason_not_served: why no stock class of transformers loads a checkpoint with such a change; "" where one does.
    """

    kind: ClassVar[str]
    reason_not_served: ClassVar[str] = ""

    @property
    @abstractmethod
    def layers(self) -> Mapping[int, str | None]:
        """Return what becomes of each layer that is touched: None where it goes, else all that decides what it computes now.

        Equal texts mean equal computing: layers that two edits change alike are run once for both.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the fields in values that JSON can hold, layers counted from 0."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the change that `to_json` wrote.

        Raises:
            EditError, KeyError, TypeError, ValueError: the content is none.
        """

    @abstractmethod
    def words(self) -> str:
        """Return what it does, for a sentence: "drops layers 3 and 5"."""

    @abstractmethod
    def apply(self, view: View) -> None:
        """Do it to a view (see `view.View`); torch is imported inside only. Layers that go are left out already."""

    def check(self, n_layers: int) -> None:  # noqa: B027 - most kinds have nothing to check
        """Refuse what fits no model of `n_layers` layers, beyond layers it does not have.

        Raises:
            EditError: it does not fit.
        """

    def refuses(self, model: ModelInfo) -> str:
        """Return why it cannot be done to this model, "" where it can as far as the info tells."""
        return ""

    @property
    def before(self) -> str:
        """Return what decides the computing ahead of layer 0, as `layers` does; "" where that is the dense model's."""
        return ""

    @property
    def after(self) -> str:
        """Return what decides the computing behind the last layer, as `layers` does; "" where that is the dense model's."""
        return ""

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is done."""
        return not (self.layers or self.before or self.after)

    def saved_parameters(self, model: ModelInfo) -> int:
        """Return how many parameters fewer a checkpoint has, of a model whose parameters were counted: those of layers that go."""
        return sum(model.layer_parameters[layer] for layer, text in self.layers.items() if text is None)

    def merged(self, other: Self) -> Self | None:
        """Return both as one change of this kind; None where they stay two, one a layer."""
        return None


def is_whole(value: object) -> bool:
    """Return whether the value is a whole number of Python's or numpy's, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)
