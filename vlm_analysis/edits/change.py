"""The Change: one step of an edit. Each kind is one file in `kinds`, and one row of the table there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis.model_info import ModelInfo

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View


class Change(ABC):
    """One change to a model, as a value. Kinds are frozen dataclasses whose fields are plain and hashable.

    A kind must define the abstract methods; the others have a default that suits most kinds.

    Attributes:
        kind: the name of the kind in files.
        owns_tensors: whether it gives modules other numbers; False where it changes only how they are run.
        reason_not_served: why no stock class of transformers loads a checkpoint with this change; "" where one does.
    """

    kind: ClassVar[str]
    owns_tensors: ClassVar[bool] = True
    reason_not_served: ClassVar[str] = ""

    @property
    @abstractmethod
    def layers(self) -> Mapping[int, str | None]:
        """Return the effect on each changed layer: None where it is dropped, else a text with all that decides what it computes.

        Equal texts mean equal computation: a sweep runs such layers of two edits once for both.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, layers counted from 0."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the change that `to_json` wrote.

        Raises:
            EditError, KeyError, TypeError, ValueError: the content is not such a change.
        """

    @abstractmethod
    def words(self) -> str:
        """Return what the change does, for a sentence: "drops layers 3 and 5"."""

    @abstractmethod
    def apply(self, view: View) -> None:
        """Apply the change to a view (see `view.View`); import torch only inside. Dropped layers are already left out."""

    def check(self, n_layers: int) -> None:  # noqa: B027 - most kinds have nothing to check
        """Raise EditError where the change fits no model of `n_layers` layers; layers beyond `n_layers` are checked elsewhere.

        Raises:
            EditError: the change does not fit.
        """

    def refuses(self, model: ModelInfo) -> str:
        """Return why the change cannot be applied to this model, "" where it can as far as `model` shows."""
        return ""

    @property
    def before(self) -> str:
        """Return a text with all that decides the computation before layer 0; "" where it is the dense model's."""
        return ""

    @property
    def after(self) -> str:
        """Return a text with all that decides the computation after the last layer; "" where it is the dense model's."""
        return ""

    @property
    def is_empty(self) -> bool:
        """Return whether the change does nothing."""
        return not (self.layers or self.before or self.after)

    def saved_by_layer(self, model: ModelInfo) -> Mapping[int, int]:
        """Return how many parameters of each layer a checkpoint saves, of a model with counted parameters: all of dropped layers."""
        return {layer: model.layer_parameters[layer] for layer, text in self.layers.items() if text is None}

    def saved_parameters(self, model: ModelInfo) -> int:
        """Return how many parameters a checkpoint saves, of a model with counted parameters."""
        return sum(self.saved_by_layer(model).values())

    def attention_shares(self, model: ModelInfo) -> Mapping[int, float]:
        """Return by layer the share of its attention groups that are left, of the layers in which some are not."""
        return {}

    def unserved(self, layers: Collection[int]) -> str:
        """Return why no stock class loads a checkpoint of these layers with this change, "" where one does."""
        return self.reason_not_served

    def without(self, layers: Collection[int]) -> Self:
        """Return the change beside changes that leave out these layers: on the others, if that makes sense; this one as it is, if not."""
        return self

    def beside(self, others: Collection[Change]) -> Self:
        """Return what is left of the change where all of the others are applied too; they may hold this one."""
        return self

    def merged(self, other: Self) -> Self | None:
        """Return both as one change of this kind; None where they stay two changes of different layers."""
        return None


def is_whole(value: object) -> bool:
    """Return whether the value is a Python or numpy integer and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)
