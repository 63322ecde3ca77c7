"""Which rows of a pass are vision tokens, and which of the keys that its layers see: those of earlier passes are noted on the cache."""

from __future__ import annotations

from typing import Any

import torch

from vlm_analysis.errors import EditError
from vlm_analysis.models.vision import vision_tokens

_NOTED, _TEXT = "strata_vision_keys", "strata_text_keys"  # attributes of a cache


class Rows:
    """The vision tokens of the pass that a view runs, noted before it begins and forgotten when it ends.

    Attributes:
        vision: bool (batch, n_rows), the rows of this pass that are vision tokens.
        has_vision: whether there is one among them.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self, *_: Any) -> None:
        """Forget the pass; a forward hook of the view."""
        self.vision = self._past = self._keys = torch.zeros(1, 0, dtype=torch.bool)
        self.has_vision = self._has_keys = False
        self._text_before: torch.Tensor | None = None
        self._text: tuple[Places, Places] | None = None
        self._images: Places | None = None

    def note(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the model is called with; a forward pre-hook of the view.

        Raises:
            EditError: the call does not tell which tokens are vision tokens, or has images and none of them.
        """
        given = ({"input_ids": args[0]} if args else {}) | kwargs
        vision = vision_tokens(model.config, given)
        if vision is None:
            raise EditError(
                "Vision tokens cannot be told from text: expected input_ids, got none. Call the edited model with input_ids."
            )
        cache = kwargs.get("past_key_values")
        n_past = 0 if cache is None else int(cache.get_seq_length())
        if n_past and not _has_images(given):  # an image's token that was written is a word as any other
            vision = torch.zeros_like(vision)
        if not n_past and given.get("pixel_values") is not None and not vision.any():
            raise EditError(
                "Vision tokens cannot be told from text: expected tokens that receive the features of the images, got none. Take the "
                "processor that belongs to the model."
            )
        past = getattr(cache, _NOTED, vision[:, :0])[:, :n_past].to(vision.device)
        self.vision, self.has_vision = vision, bool(vision.any())
        self._past = torch.nn.functional.pad(past, (n_past - past.shape[1], 0))
        self._text_before = getattr(cache, _TEXT, None) if n_past else None
        self._keys = torch.cat([self._past, vision], dim=1)
        self._has_keys = bool(self._keys.any())
        self._text = self._images = None

    def of(self, states: torch.Tensor) -> torch.Tensor:
        """Return `vision` on the device of a layer's input (batch, n_rows, …).

        Raises:
            EditError: the layers run on other rows than the tokens that the model was called with.
        """
        if tuple(states.shape[:2]) != tuple(self.vision.shape):
            raise EditError(
                f"Vision tokens cannot skip layers: expected as many tokens in a layer as in the call, {tuple(self.vision.shape)}, got "
                f"{tuple(states.shape[:2])}. Call the edited model as a whole."
            )
        return self.vision.to(states.device)

    def keys(self, cache: Any, device: torch.device) -> torch.Tensor | None:
        """Return which keys are vision tokens, bool (batch, n_keys), those of earlier passes first; None where none is."""
        if cache is not None:
            setattr(cache, _NOTED, self._keys)
        return self._keys.to(device) if self._has_keys else None

    @property
    def n_keys(self) -> int:
        """Return the number of tokens so far, those of earlier passes counted."""
        return self._keys.shape[1]

    def text(self, cache: Any, device: torch.device) -> tuple[Places, Places]:
        """Return where text stands: among the rows of this pass, and among all keys."""
        if self._text is None:
            rows = places_of(~self.vision)
            n_past = self._past.shape[1]
            before = places_of(~self._past) if self._text_before is None else self._text_before
            keys = torch.cat([before, torch.where(rows < 0, rows, rows + n_past)], dim=1)
            self._text = Places(rows), Places(keys)
        rows_of_text, keys_of_text = self._text
        if cache is not None:
            setattr(cache, _TEXT, keys_of_text.index)
        return rows_of_text.to(device), keys_of_text.to(device)

    def images(self, device: torch.device) -> Places:
        """Return where vision tokens stand among the rows of this pass."""
        if self._images is None:
            self._images = Places(places_of(self.vision))
        return self._images.to(device)


class Places:
    """Places of some tokens of each prompt, ascending.

    Attributes:
        index: int64 (batch, n); -1 where a prompt has fewer of them than another.
        is_whole: whether no prompt has fewer.
        is_even: whether they are the same for all prompts.
    """

    def __init__(self, index: torch.Tensor) -> None:
        self.index = index
        self.is_whole = not bool((index < 0).any())
        self.is_even = self.is_whole and bool((index == index[:1]).all())

    def to(self, device: torch.device) -> Places:
        return self if self.index.device == device else Places(self.index.to(device))

    def shifted(self, by: int) -> Places:
        """Return the places counted from `by` on; earlier ones are -1."""
        return self if by == 0 else Places((self.index - by).clamp(min=-1))

    def take(self, values: torch.Tensor, dim: int, batch: int = 0) -> torch.Tensor:
        """Return the values at these places along a dimension; some other ones stand where a prompt has fewer."""
        dim, n = dim % values.dim(), self.index.shape[1]
        if self.is_even or dim == 0:
            return values.index_select(dim, self.index[0].clamp(min=0))
        shape = list(values.shape)
        shape[batch] = self.index.shape[0]
        values = values.expand(shape)
        filled = torch.where(self.index < 0, self.index[:, :1], self.index).clamp(min=0)
        view = [1] * values.dim()
        view[batch], view[dim] = filled.shape
        shape[dim] = n
        return values.gather(dim, filled.view(view).expand(shape))

    def put(self, into: torch.Tensor, values: torch.Tensor) -> None:
        """Write values to these places of `into` (batch, n_tokens, …)."""
        if self.is_even:
            into[:, self.index[0]] = values
            return
        row, column = (self.index >= 0).nonzero(as_tuple=True)
        into[row, self.index[row, column]] = values[row, column]


def _has_images(given: dict[str, Any]) -> bool:
    """Return whether a model is called with images: numbers for its tower, or features."""
    return any(
        torch.is_tensor(value) and value.is_floating_point()
        for name, value in given.items()
        if name.startswith(("pixel", "image"))
    )


def places_of(chosen: torch.Tensor) -> torch.Tensor:
    """Return the places of True of each prompt, ascending, int64 (batch, most of them); -1 behind those of a prompt with fewer."""
    most = int(chosen.sum(dim=1).max()) if chosen.numel() else 0
    places = torch.argsort((~chosen).long(), dim=1, stable=True)[:, :most]
    return torch.where(chosen.gather(1, places), places, -1)
