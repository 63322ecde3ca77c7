"""Will it serve: for each engine whether it loads the exported checkpoint, by which command, or why not.

Nothing here runs an engine. The rules were read from the released code that `Engine.source` names, and say no more than stands there;
what was not read is "not verified". Whether a server answers as the exported model does is what the probe tells (`export.probe`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis import words
from vlm_analysis.edits.change import Change
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.foreign.lists import mask_to_llama_cpp
from vlm_analysis.edits.kinds.tower import Tower
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.errors import ExportError
from vlm_analysis.export.serving.engines import ENGINES, LOADS, NOT_VERIFIED, OTHER_ANSWERS, REFUSES, Engine
from vlm_analysis.export.serving.lists import BY_LIST, BY_PLACE, CONVERTED_AS_TEXT, LISTED, NOWHERE
from vlm_analysis.files import write_atomically
from vlm_analysis.guard.schema import fields, flag, listed, text
from vlm_analysis.saved import Form

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel

SERVING_FILE = "serving.json"
_WITH_MODULE = "cd {folder} && python -i -c \"from strata_vision import load; model = load('.')\""
DENSE_GGUF, PRUNED_GGUF = "dense.gguf", "pruned.gguf"
_ENGINE = fields(
    {
        **{name: text() for name in ("engine", "version", "verdict", "reason", "source")},
        "commands": listed(text()),
        "run_here": flag,
    }
)
FORM = Form(
    ("serving",), 1, "table of engines", "Export again.", ExportError, fields({"engines": listed(_ENGINE, 1, 100)})
)


@dataclass(frozen=True)
class Served:
    """What one engine does with an exported checkpoint.

    Attributes:
        engine, version: its name, and the version whose code was read.
        verdict: "loads", "refuses", "other answers" (it loads, and answers otherwise than the exported model) or "not verified".
        reason: why, in a sentence or two.
        commands: lines to copy, for a folder of this name.
        source: where it was read.
        run_here: whether this was tried, and not only read: the proof of an export loads the folder by transformers.
    """

    engine: str
    version: str
    verdict: str
    reason: str
    commands: tuple[str, ...]
    source: str
    run_here: bool = False


@dataclass(frozen=True)
class Architecture:
    """What the rules look at in a dense model.

    Attributes:
        name: the model class, as `architectures` of config.json has it.
        text: the class that the decoder's own configuration names; "" where it names none.
        layer_types: the kind of each decoder layer; empty where the configuration has no such list.
        has_lists: whether the decoder's configuration has a list with an entry for each layer whose entries differ.
        n_deepstack: how many layers get DeepStack features, by their place.
    """

    name: str
    text: str = ""
    layer_types: tuple[str, ...] = ()
    has_lists: bool = False
    n_deepstack: int = 0


def architecture_of(config: Mapping[str, Any], name: str = "") -> Architecture:
    """Return what the rules look at, of a dense model's configuration as its config.json holds it.

    Args:
        config: of the whole model.
        name: the model class, where it is known better than by the configuration.
    """
    decoder, vision = config.get("text_config") or config, config.get("vision_config") or {}
    n_layers = decoder.get("num_hidden_layers")
    kinds = decoder.get("layer_types") or ()
    lists = [value for value in decoder.values() if isinstance(value, (list, tuple)) and len(value) == n_layers]
    of_text = (decoder.get("architectures") or [""])[0] if decoder is not config else ""
    return Architecture(
        name or (config.get("architectures") or [""])[0],
        of_text,
        tuple(kinds),
        any(len(set(map(str, value))) > 1 for value in lists),
        len(vision.get("deepstack_visual_indexes") or ()),
    )


def will_it_serve(loaded: LoadedModel, edit: Edit, folder: Path | str = "pruned", *, proved: str = "") -> list[Served]:
    """Return for each engine whether it loads the export of an edit of a model, by which command, or why not.

    Nothing is run: the rules were read from the engines' released code.

    Args:
        loaded: the dense model.
        edit: what is done to it.
        folder: the exported folder, for the commands.
        proved: the version of transformers that loaded the export in a fresh process, where it was compared; "" before.
    """
    architecture = architecture_of(loaded.model.config.to_dict(), type(loaded.model).__name__)
    return served_by(edit, architecture, folder, proved=proved)


def served_by(
    edit: Edit, architecture: Architecture, folder: str | Path = "pruned", *, proved: str = ""
) -> list[Served]:
    """Return the same for an architecture, without a model."""
    return [_served(engine, edit, architecture, str(folder), proved) for engine in ENGINES]


def _served(engine: Engine, edit: Edit, architecture: Architecture, folder: str, proved: str) -> Served:
    verdict, reason = _judged(engine, edit, architecture)
    skips = any(isinstance(change, Vision) for change in edit.changes)
    run_here = engine.key == "transformers" and bool(proved) and verdict == LOADS
    if run_here:
        module = f" {reason}" if skips else ""
        reason = f"The export loaded it in a fresh process and compared logits and an answer bit for bit.{module}"
    lines = (_WITH_MODULE,) if skips and engine.key == "transformers" else engine.commands
    commands = () if verdict == REFUSES else tuple(line.format(folder=shlex.quote(folder)) for line in lines)
    if engine.key == "llama.cpp" and verdict == LOADS and edit.is_mask and edit.dropped:
        commands += _pruning_lines(edit, architecture)
        reason += _of_pruning(architecture)
    version = proved if run_here else engine.version
    return Served(engine.title, version, verdict, reason.strip(), commands, engine.source, run_here)


def _judged(engine: Engine, edit: Edit, architecture: Architecture) -> tuple[str, str]:
    """Return the verdict and its reason."""
    for change in edit.changes:
        if isinstance(change, Vision):
            return _without_module(engine, replace(edit, changes=_others(edit)), architecture, change)
        if reason := change.unserved([layer for layer, _ in edit.steps.layers]):
            return REFUSES, f"The edit {change.words()}: {reason}."
    if engine.key == "transformers":
        return LOADS, "The export loads it in a fresh process and compares it."
    if any(isinstance(change, Tower) for change in edit.changes):
        return NOT_VERIFIED, "What it makes of a vision encoder with fewer layers was not looked up."
    listed = _lists(engine, architecture)
    if listed is None:
        return NOT_VERIFIED, f"{architecture.name or 'The architecture'} is none of those that were looked up."
    if not listed:
        return (NOT_VERIFIED if engine.falls_back else REFUSES), _not_listed(engine, architecture)
    return _by_what_stands_where(engine, edit, architecture)


def _others(edit: Edit) -> tuple[Change, ...]:
    return tuple(change for change in edit.changes if not isinstance(change, Vision))


def _without_module(engine: Engine, stored: Edit, architecture: Architecture, vision: Vision) -> tuple[str, str]:
    """Return what becomes of an edit in which vision tokens skip layers: the checkpoint holds the rest of it alone."""
    verdict, reason = _judged(engine, stored, architecture)
    told = f"The edit {vision.words()}: {vision.reason_not_served}."
    if engine.key == "transformers":
        return LOADS, f"{told} `strata_vision.py` in the folder lets them skip layers; `transformers serve` does not."
    if verdict in (REFUSES, NOT_VERIFIED):
        return verdict, f"{told} {reason}"
    return OTHER_ANSWERS, f"{told} It loads the checkpoint, and vision tokens run through all layers."


def _lists(engine: Engine, architecture: Architecture) -> bool | None:
    """Return whether an engine lists the architecture; None where that was not looked up."""
    if architecture.name not in LISTED and architecture.name not in NOWHERE:
        return None
    named = LISTED.get(architecture.name, "").split()
    if engine.key == "llama.cpp":
        if architecture.text and "mmproj" in named:
            return True if architecture.text in CONVERTED_AS_TEXT or architecture.text == architecture.name else None
        return "text" in named and "mmproj" in named
    return engine.key in named


def _not_listed(engine: Engine, architecture: Architecture) -> str:
    reason = f"{architecture.name} is not in its list of {engine.version}."
    return f"{reason} {engine.falls_back}" if engine.falls_back else reason


def _by_what_stands_where(engine: Engine, edit: Edit, architecture: Architecture) -> tuple[str, str]:
    """Return what becomes of a listed architecture: of kinds of layers and of DeepStack features, which go by place."""
    if architecture.n_deepstack and not engine.has_deepstack:
        return OTHER_ANSWERS, f"DeepStack features of the image are lost: {engine.without_deepstack}"
    pair = (engine.key, architecture.name)
    if _kinds_move(edit, architecture) and pair in BY_PLACE:
        return OTHER_ANSWERS, (
            f"It takes the kind of a layer from its place ({BY_PLACE[pair]}), and not from `layer_types`; this edit moves layers to "
            "places of another kind."
        )
    if _kinds_move(edit, architecture) and pair not in BY_LIST:
        return NOT_VERIFIED, (
            "It lists the architecture. This edit moves layers to places that have another kind in the dense model; whether it takes the "
            "kind from `layer_types` or from the place was not read. Ask it the probe."
        )
    moved = [layer for layer in edit.gone if layer < architecture.n_deepstack]
    note = (
        f" Without {words.layers(moved)} DeepStack features go to the next layers, there as in the exported model."
        if moved
        else ""
    )
    return LOADS, f"It lists {architecture.name}.{f' {engine.note}' if engine.note else ''}{note}"


def _kinds_move(edit: Edit, architecture: Architecture) -> bool:
    """Return whether a layer that is left comes to a place whose kind in the dense model is another one."""
    kinds = architecture.layer_types
    if len(kinds) != edit.n_layers:
        return False
    left = [kinds[layer] for layer, _ in edit.steps.layers]
    return left != list(kinds[: len(left)])


def _pruning_lines(edit: Edit, architecture: Architecture) -> tuple[str, ...]:
    if architecture.has_lists:
        return ()
    return (f"llama-quantize {mask_to_llama_cpp(edit).strip()} {DENSE_GGUF} {PRUNED_GGUF} COPY",)


def _of_pruning(architecture: Architecture) -> str:
    if architecture.has_lists:
        return (
            " Its `llama-quantize --prune-layers` does not cut lists with an entry for each layer, which this model has: convert the "
            "folder."
        )
    return (
        f" The last line makes the same of a GGUF of the dense model, {DENSE_GGUF}; the mmproj file is the dense one's."
    )


def serving_json(served: Sequence[Served]) -> str:
    """Return the text of `serving.json`."""
    return FORM.text({"engines": [asdict(one) for one in served]})


def write_serving(served: Sequence[Served], folder: Path) -> Path:
    """Write `serving.json` into a folder and return its path."""
    return write_atomically(folder / SERVING_FILE, lambda part: part.write_text(serving_json(served), "utf-8"))


def open_serving(folder: Path) -> list[Served]:
    """Return what `serving.json` of an exported folder says; empty where there is none.

    Raises:
        ExportError: the file is damaged.
    """
    path = Path(folder) / SERVING_FILE
    if not path.exists():
        return []
    return FORM.open(path, lambda content: [_served_of(one) for one in content["engines"]])


def _served_of(one: Mapping[str, Any]) -> Served:
    return Served(
        one["engine"],
        one["version"],
        one["verdict"],
        one["reason"],
        tuple(one["commands"]),
        one["source"],
        one["run_here"],
    )
