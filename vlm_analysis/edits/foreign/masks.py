"""What the readers of other tools' files share: layer numbers that make a mask, and the message on what is none."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection
from typing import NoReturn

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.edits.kinds.drop import check_layers
from vlm_analysis.errors import MaskError, NoLayerCountError, short

_YET = "Strata has no such change yet"
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def mask_of_layers(layers: Collection[object], n_layers: int | None, tool: str, name: str) -> Edit:
    """Return the mask that drops these layers, counted from 0.

    Args:
        layers: as they stand in the file.
        n_layers: decoder layers of the unpruned model; None where it is not known.
        tool: whose file it is; the provenance says so.
        name: of the file, in errors.

    Raises:
        MaskError: no layers, or numbers that are not whole, repeated or beyond the model's layers.
        NoLayerCountError: `n_layers` is not known.
    """
    try:
        check_layers(layers)
        if not layers:
            raise MaskError("Expected one layer at least, got none. Name the layers to drop.")
        if n_layers is None:
            raise NoLayerCountError(name)
        return PruneMask(n_layers, layers, provenance={"opened_from": tool})  # type: ignore[arg-type]  # are whole
    except NoLayerCountError:
        raise
    except MaskError as error:
        raise MaskError(f"{name} is not a mask. {short(error, 300)}") from error


def refuse(name: str, expected: str, got: object, advice: str) -> NoReturn:
    """Raise MaskError: "NAME is not a mask: expected X, got Y. What to do."."""
    raise MaskError(
        f"{name} is not a mask: expected {expected}, got {short(got if isinstance(got, str) else reprlib.repr(got))}. {advice}"
    )


def refuse_kind(name: str, got: str, advice: str) -> NoReturn:
    """Raise MaskError for a change of a kind that Strata does not have."""
    refuse(name, "whole layers that are left out", got, f"{_YET}. {advice}")


def numbers_in(text: str, name: str) -> list[int]:
    """Return the layer numbers of a text like "3,4".

    Raises:
        MaskError: it holds something else.
    """
    parts = [part.strip() for part in text.split(",")]
    wrong = next((part for part in parts if not _NUMBER.fullmatch(part)), None)
    if wrong is not None:
        refuse(name, "layer numbers with commas between them", wrong, "Write them as 3,4.")
    return [int(part) for part in parts]
