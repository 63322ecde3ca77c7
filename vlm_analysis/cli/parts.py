"""Options of mask that leave the attention or the MLP of layers out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.errors import EditError, short

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.recording.recording import Recording

DropAttention = Annotated[
    str, typer.Option("--drop-attention", metavar="LAYERS", help='Layers whose attention is left out: "3,5".')
]
DropMlp = Annotated[
    str,
    typer.Option(
        "--drop-mlp", metavar="LAYERS", help="Layers whose MLP is left out; one that is in both goes as a whole."
    ),
]


def parts_edit(recording: Recording, attention: str, mlp: str) -> Edit | None:
    """Return the edit of the options; None without one.

    Raises:
        EditError: an option names no layers, or the recording's model refuses the edit.
    """
    from vlm_analysis.edits.sublayers import drop_parts
    from vlm_analysis.words import sentence

    if not attention and not mlp:
        return None
    layers = [layers_of_option(option, text) for option, text in (("--drop-attention", attention), ("--drop-mlp", mlp))]
    edit = drop_parts(recording.n_layers, *layers)
    if reason := edit.refuses(recording.model):
        raise EditError(reason)
    return replace(edit, name=sentence(edit.words()), provenance={"made": "by hand"})


def layers_of_option(option: str, text: str) -> tuple[int, ...]:
    """Return the layers that the text of an option names, none where it is empty.

    Raises:
        EditError: it names none.
    """
    from vlm_analysis.edits.shorthand import layers_in

    layers = layers_in(text) if text else ()
    if layers is None:
        raise EditError(
            f"{option} names no layers: expected layers like 3,5-7, got {short(repr(text))}. Write their numbers."
        )
    return layers
