"""What the command line does with layers of the vision encoder: an option of mask that leaves some out, and their ranking."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.cli.maskfiles import tell_locks
from vlm_analysis.cli.output import Result
from vlm_analysis.cli.parts import layers_of_option
from vlm_analysis.errors import EditError, MaskError

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.recording.recording import Recording

DropTower = Annotated[
    str,
    typer.Option("--drop-tower", metavar="LAYERS", help='Layers of the vision encoder that are left out: "3,5".'),
]
OfTower = Annotated[
    bool,
    typer.Option(
        "--tower",
        help="Score the layers of the vision encoder, by block influence; of the other options, with --domain.",
    ),
]


def tower_edit(recording: Recording, text: str) -> Edit | None:
    """Return the edit of --drop-tower, and warn of layers that should stay; None without the option.

    Raises:
        EditError: the option names no layers, or the recording's model refuses the edit.
    """
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.edits.kinds.tower import Tower
    from vlm_analysis.words import sentence

    if not text:
        return None
    layers, tower = layers_of_option("--drop-tower", text), recording.model.tower
    if tower is None or not tower.n_layers:
        got = f"none: {tower.missing}" if tower is not None and tower.missing else "a recording that names none"
        raise EditError(
            f"--drop-tower cannot be used: expected a vision encoder whose layers can be dropped, got {got}. Leave the option out, or "
            "record again."
        )
    change = Tower(tower.n_layers, layers)
    if reason := change.refuses(recording.model):
        raise EditError(reason)
    edit = Edit(recording.n_layers, (change,), name=sentence(change.words()), provenance={"made": "by hand"})
    tell_locks(edit, recording.model)
    return replace(edit, model=recording.model)


def rank_tower(recording: Recording, domain: str | None, beside: Collection[str]) -> Result:
    """Return the block influence of each layer of the vision encoder, which go first, and which stay, with the reasons.

    Args:
        recording: what was measured.
        domain: whose prompts count; None for all.
        beside: names of options that were set and would change nothing.

    Raises:
        MaskError: there is such an option, or the recording has no such numbers.
        RecordingError: an unknown domain.
    """
    import pandas as pd

    from vlm_analysis.cli.results import aside, grid
    from vlm_analysis.selection.tower import score_tower, tower_order
    from vlm_analysis.words import layers as layer_words, sentence

    if unused := ", ".join(f"--{name.replace('_', '-')}" for name in beside):
        raise MaskError(
            f"--tower scores by block influence alone: expected no {unused} beside it, got one. Leave it out, or --tower."
        )
    scores, tower, order = score_tower(recording, domain), recording.model.tower, tower_order(recording, domain)
    assert tower is not None  # else it has no scores
    layers = range(tower.n_layers)
    stays = ["locked" if one in tower.locked else "protected" if one in tower.protected else "" for one in layers]
    goes = [order.index(layer) + 1 if layer in order else None for layer in layers]
    shown = pd.DataFrame({"layer": layers, "block-influence": scores, "stays": stays})
    table = pd.DataFrame(
        {"criterion": "block-influence", "layer": layers, "score": scores, "goes": goes, "stays": stays}
    )
    first = f"The least goes first: {', '.join(map(str, order)) or 'none may go'}"
    said = [f"{layer_words([layer])} stays: {reason}" for layer, reason in tower.locks.reasons.items()]
    unread = [f"{layer_words(tower.unread)}: nothing reads what comes out"] if tower.unread else []
    data = {
        "model": recording.model.fingerprint,
        "prompts": recording.prompts,
        "domain": domain,
        "tower": {"criterion": "block-influence", "values": scores, "order": order, "stays": tower.locks.reasons},
        "set_aside": recording.set_aside,
    }
    about = (
        f"Layers of the vision encoder, {'all prompts' if domain is None else domain}: 1 − cosine of input and output"
    )
    text = "\n".join([about, grid(shown, 4), "", first, *map(sentence, [*said, *unread])])
    return Result(
        "Scores of the layers of the vision encoder",
        text + aside(recording.set_aside, recording.n_prompts),
        data,
        table,
    )
