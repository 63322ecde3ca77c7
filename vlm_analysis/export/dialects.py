"""Masks in the formats of other tools: mergekit's `modules:` YAML and a plain order CSV. The JSON mask file is the main format; what
other tools write as JSON or text is in `edits/foreign/`.

mergekit YAML: the decoder is the module `text_decoder`, written as passthrough slices of one model. `layer_range: [a, b]` counts
from 0 and is half-open: layers a to b - 1. mergekit writes only the named modules, so the vision parts are listed
whole. The file does not state the number of layers of the model: pass `n_layers` to open one.

CSV: one row for each layer of the unpruned model, with the columns

    layer        the layer's number, counted from 0 (a column `layer_from_1` counts from 1 and is converted)
    kept         1: the layer stays, 0: it is dropped
    drop_order   1 for the layer that is dropped first, 2 for the next, …; empty where unknown or kept

The `per_layer_config` of transformers with `skip` entries is not supported: no model skips a layer because of it.
"""

from __future__ import annotations

import csv
import io
import itertools
import reprlib
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NoReturn

import yaml

from vlm_analysis.edits.edit import MOST_LAYERS, Edit, PruneMask, only_mask
from vlm_analysis.edits.files import edit_from_json
from vlm_analysis.errors import MaskError, NoLayerCountError
from vlm_analysis.model_info import ModelInfo

DECODER, OTHERS = "text_decoder", ("vision_tower", "multi_modal_projector")
COLUMNS = ("layer", "kept", "drop_order")
_MOST_BYTES = {".json": 1 << 20, ".yaml": 1 << 18, ".yml": 1 << 18, ".csv": 1 << 18, ".txt": 1 << 16}
SUFFIXES = tuple(_MOST_BYTES)
_MOST_ROWS = MOST_LAYERS
_YAML_NOTE = """\
# A Strata mask for mergekit: keeps {kept} of {all} decoder layers. Layers count from 0; [a, b] means layers a to b - 1.
# The module names are those of the vision-language models mergekit describes itself (Qwen-VL, Gemma 3, Mistral 3; in Llama 4
# `vision_tower` is `vision_model`). For others it names modules by the prefix of their tensors: rename them here.
# mergekit changes the number of layers in config.json only. Where a model has a list with an entry for each layer
# (`layer_types`, …), export the checkpoint from Strata instead.
"""


def mask_to_mergekit(
    mask: Edit, source: str | None = None, *, decoder: str = DECODER, others: Sequence[str] = OTHERS
) -> str:
    """Return the mask as a mergekit configuration.

    Args:
        mask: the layers to leave out.
        source: hub id or folder of the unpruned model; None for the model of the mask.
        decoder: mergekit's name for the module that holds the decoder layers.
        others: mergekit's names for the other modules, which are kept whole.

    Raises:
        MaskError: neither `source` nor the mask names a model, or the edit does more than drop layers.
    """
    only_mask(mask, "It cannot be written for mergekit")
    if not source and mask.model is None:
        raise MaskError("A mergekit file names a model: expected the mask to know its own, got none. Pass `source`.")
    source = source or _reference(mask)
    slices = [{"sources": [{"model": source, "layer_range": [start, end]}]} for start, end in kept_ranges(mask)]
    modules: dict[str, Any] = {decoder: {"slices": slices}}
    modules |= {name: {"models": [{"model": source}]} for name in others}
    content = {"merge_method": "passthrough", "modules": modules}
    note = _YAML_NOTE.format(kept=len(mask.kept), all=mask.n_layers)
    return note + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _reference(mask: Edit) -> str:
    assert mask.model is not None
    revision = mask.model.revision
    return f"{mask.model.name}@{revision}" if revision else mask.model.name


def kept_ranges(mask: Edit) -> list[tuple[int, int]]:
    """Return the kept layers as runs (first, last + 1).

    >>> kept_ranges(PruneMask(8, (3, 4)))
    [(0, 3), (5, 8)]
    """
    edges = [-1, *mask.dropped, mask.n_layers]
    return [(before + 1, after) for before, after in itertools.pairwise(edges) if before + 1 < after]


def mask_to_csv(mask: Edit) -> str:
    """Return the mask as CSV with the columns `layer,kept,drop_order` (see the docstring of the module).

    Raises:
        MaskError: the edit does more than drop layers.
    """
    only_mask(mask, "It cannot be written as CSV")
    position_of = {layer: number for number, layer in enumerate(_drop_order(mask), start=1)}
    rows = [(layer, int(layer not in mask.dropped), position_of.get(layer, "")) for layer in range(mask.n_layers)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    return text.getvalue()


def _drop_order(mask: Edit) -> list[int]:
    """Return the dropped layers in drop order; empty where the provenance does not have it."""
    order = mask.provenance.get("drop_order")
    return order if isinstance(order, list) and sorted(map(repr, order)) == sorted(map(repr, mask.dropped)) else []


# --- opening -------------------------------------------------------------------------------------------------------


def open_dialect(
    data: bytes, name: str, *, n_layers: int | None = None, from_one: bool = False, model: ModelInfo | None = None
) -> Edit:
    """Return the mask in a file of any dialect, decided by the suffix of its name, and for JSON by its fields (see `open_edit`).

    Args:
        data: the file's bytes, UTF-8.
        name: the file name, with the suffix .json, .yaml, .yml, .csv or .txt.
        n_layers: decoder layers of the unpruned model; required for a mergekit file and for lists of layers.
        from_one: whether the column `layer` of a CSV counts from 1. The other dialects define this themselves.
        model: the unpruned model, in place of `n_layers`; required for histories of Torch-Pruning, which need its widths.

    Raises:
        MaskError: the file is too large, not text, of another kind, or not expressible as a mask.
        NoLayerCountError: it does not say how many layers the model has, and `n_layers` is not given.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in _MOST_BYTES:
        raise MaskError(f"{name} is not a mask: expected a name ending in {', '.join(SUFFIXES)}, got {suffix!r}.")
    if len(data) > _MOST_BYTES[suffix]:
        raise MaskError(f"{name} is not a mask: expected at most {_MOST_BYTES[suffix]} bytes, got {len(data)}.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MaskError(
            f"{name} is not a mask: expected text in UTF-8, got byte {error.object[error.start]:#04x} at {error.start}. "
            "Save it as UTF-8."
        ) from error
    if suffix == ".csv":
        return mask_from_csv(text, name, from_one=from_one)
    if suffix in (".json", ".txt"):
        return edit_from_json(text, name, n_layers=n_layers, model=model)
    return mask_from_mergekit(text, model.n_layers if model else n_layers, name)


def mask_from_csv(text: str, name: str = "The text", *, from_one: bool = False) -> Edit:
    """Return the mask of an order CSV; with `from_one`, or where the first column is `layer_from_1`, layers count from 1.

    Raises:
        MaskError: a column is missing, a layer is missing or repeated, or a value is invalid.
    """
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(map(str.strip, row))]
    except (ValueError, csv.Error) as error:
        raise MaskError(f"{name} is not a mask: expected the columns {', '.join(COLUMNS)}, got no table.") from error
    columns = [column.strip() for column in header]
    declared = "layer_from_1" in columns
    columns = ["layer" if column == "layer_from_1" else column for column in columns]
    if not {"layer", "kept"} <= set(columns) or len(set(columns)) != len(columns):
        got = reprlib.repr(columns)
        raise MaskError(f"{name} is not a mask: expected the columns {', '.join(COLUMNS)}, each once, got {got}.")
    if not 1 <= len(rows) <= _MOST_ROWS:
        raise MaskError(f"{name} is not a mask: expected a row for each layer, 1 to {_MOST_ROWS}, got {len(rows)}.")
    cells = [_cells(row, columns, f"{name}, row {number}") for number, row in enumerate(rows, start=2)]
    return _mask_of_cells(cells, 1 if declared or from_one else 0, name)


def _cells(row: list[str], columns: list[str], where: str) -> dict[str, int | None]:
    """Return the numbers of a row by column; None for an empty cell. Other columns are left out."""
    if len(row) != len(columns):
        raise MaskError(f"{where}: expected {len(columns)} cells, got {len(row)}.")
    numbers: dict[str, int | None] = {}
    for column, cell in zip(columns, map(str.strip, row), strict=True):
        if column not in COLUMNS:
            continue
        if not (cell == "" and column == "drop_order") and not (cell.isascii() and cell.isdigit() and len(cell) <= 9):
            raise MaskError(f"{where}: expected a whole number in '{column}', got {reprlib.repr(cell)}.")
        numbers[column] = int(cell) if cell else None
    if numbers["kept"] not in (0, 1):
        raise MaskError(f"{where}: expected 1 (stays) or 0 (dropped) in 'kept', got {numbers['kept']}.")
    return numbers


def _mask_of_cells(cells: list[dict[str, int | None]], first: int, name: str) -> Edit:
    layers = sorted(cell["layer"] or 0 for cell in cells)
    if layers != list(range(first, first + len(cells))):
        other = 1 - first
        advice = (
            f"These are numbers from {other}: say that it counts from {other}, or renumber it."
            if layers == list(range(other, other + len(cells)))
            else "Each layer of the unpruned model has one row."
        )
        raise MaskError(
            f"{name} is not a mask: expected the layers {first} to {first + len(cells) - 1}, each once, got "
            f"{reprlib.repr(layers)}. {advice}"
        )
    dropped = {(cell["layer"] or 0) - first: cell.get("drop_order") for cell in cells if not cell["kept"]}
    order = _order_of(cells, dropped, name)
    return PruneMask(
        len(cells), tuple(dropped), provenance={"opened_from": "CSV"} | ({"drop_order": order} if order else {})
    )


def _order_of(cells: list[dict[str, int | None]], dropped: dict[int, int | None], name: str) -> list[int]:
    """Return the dropped layers in drop order; empty where the file has none."""
    positions = [cell["drop_order"] for cell in cells if cell.get("drop_order") is not None]
    if not positions:
        return []
    order = sorted(dropped, key=lambda layer: dropped[layer] or 0)
    if [dropped[layer] for layer in order] != list(range(1, len(dropped) + 1)) or len(positions) != len(dropped):
        raise MaskError(
            f"{name} is not a mask: expected 1 to {len(dropped)} in 'drop_order', each once and for the dropped layers only, got "
            f"{reprlib.repr(positions)}. Empty the column if the order is not known."
        )
    return order


def mask_from_mergekit(text: str, n_layers: int | None, name: str = "The text") -> Edit:
    """Return the mask that a mergekit configuration expresses: passthrough slices of one model, in order, without repeats.

    Args:
        text: YAML with `modules:` (one of which has `slices`) or, as for language models, `slices` at the top.
        n_layers: decoder layers of the unpruned model.
        name: name of the text in errors.

    Raises:
        MaskError: the text is not such a configuration, or it uses several models, or reorders, repeats or scales layers.
    """
    if n_layers is None:
        raise NoLayerCountError(name)
    content = _parsed(text, name)
    if content.get("merge_method") != "passthrough":
        _refuse(name, "merge_method 'passthrough'", content.get("merge_method"), "Other methods mix weights.")
    _refuse_extras(content, name)
    models: set[str] = set() if content.get("base_model") is None else {_model(content["base_model"], name)}
    slices = _decoder_slices(content, models, name)
    kept: list[int] = []
    for entry in slices:
        model, start, end = _slice(entry, name)
        models.add(model)
        if not 0 <= start < end <= n_layers:
            _refuse(name, f"a layer_range in 0 to {n_layers}, not empty", [start, end], "It counts from 0, half-open.")
        if kept and start <= kept[-1]:
            _refuse(name, f"slices in rising order, each layer once, after layer {kept[-1]}", [start, end], _NO_MASK)
        kept += range(start, end)
    if len(models) != 1:
        _refuse(name, "slices of one model", sorted(models), _NO_MASK)
    dropped = sorted(set(range(n_layers)) - set(kept))
    return PruneMask(n_layers, tuple(dropped), provenance={"opened_from": "mergekit", "source": models.pop()})


_NO_MASK = "A mask leaves layers out; it cannot reorder, repeat, scale or mix them."


def _refuse(name: str, expected: str, got: object, advice: str) -> NoReturn:
    raise MaskError(f"{name} is not a mask: expected {expected}, got {reprlib.repr(got)}. {advice}")


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases to lists and mappings, as nested aliases grow exponentially when traversed."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            node = self.anchors.get(self.peek_event().anchor)
            if node is not None and not isinstance(node, yaml.ScalarNode):
                raise yaml.YAMLError("an alias to a list or mapping")
        return super().compose_node(parent, index)


def _parsed(text: str, name: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, Loader=_PlainLoader)  # a SafeLoader: builds only plain values
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MaskError(f"{name} is not a mask: expected a mergekit configuration, got YAML with {reason}.") from error
    if not isinstance(content, dict):
        _refuse(name, "a mergekit configuration with 'modules'", content, "Export one to see the form.")
    return content


def _refuse_extras(entry: dict[str, Any], name: str) -> None:
    """Raise MaskError for settings that change weights."""
    for key in ("parameters", "residual_weight"):
        if entry.get(key):
            _refuse(name, f"no '{key}'", entry[key], _NO_MASK)


def _decoder_slices(content: dict[str, Any], models: set[str], name: str) -> list[Any]:
    """Return the slices of the one module that has slices; add the models of the others to `models`."""
    modules = content.get("modules")
    if modules is None:
        modules = {DECODER: {"slices": content.get("slices")}}
    if not isinstance(modules, dict) or not all(isinstance(module, dict) for module in modules.values()):
        _refuse(name, "named modules", modules, "Export one to see the form.")
    sliced = [key for key, module in modules.items() if module.get("slices")]
    if len(sliced) != 1:
        _refuse(name, "'slices' in one module, the text decoder", sliced, "The other modules are named with 'models'.")
    for key, module in modules.items():
        _refuse_extras(module, name)
        for entry in [] if key == sliced[0] else _listed(module.get("models"), name):
            _refuse_extras(entry, name)
            models.add(_model(entry.get("model"), name))
    return _listed(modules[sliced[0]]["slices"], name)


def _listed(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        _refuse(name, "a list of entries", value, "Export one to see the form.")
    return value


def _slice(entry: dict[str, Any], name: str) -> tuple[str, int, int]:
    """Return the model of a slice and its layer range [start, end)."""
    _refuse_extras(entry, name)
    sources = _listed(entry.get("sources"), name)
    if len(sources) != 1 or entry.get("base_model"):
        _refuse(name, "one source for each slice", sources, _NO_MASK)
    _refuse_extras(sources[0], name)
    bounds = sources[0].get("layer_range")
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(type(bound) is int for bound in bounds):
        _refuse(name, "a layer_range of two whole numbers", bounds, "[a, b] means layers a to b - 1, from 0.")
    return _model(sources[0].get("model"), name), bounds[0], bounds[1]


def _model(value: Any, name: str) -> str:
    """Return a model reference as `path` or `path@revision`; mergekit writes it as text or as a mapping."""
    if isinstance(value, dict) and set(value) == {"model"}:
        value = value["model"]
    if isinstance(value, dict) and set(value) in ({"path"}, {"path", "revision"}):
        value = f"{value['path']}@{value['revision']}" if value.get("revision") else value["path"]
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 500:
        _refuse(name, "a model's id or folder in each source", value, "LoRAs and other extras are no part of a mask.")
    if "+" in value:
        _refuse(name, "a model without a LoRA ('+')", value, _NO_MASK)
    return value
