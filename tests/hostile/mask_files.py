"""Masks of other tools that someone edited by hand or made up: Puzzletron, LLM-Drop, optipfair, llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vlm_analysis import open_edit, open_mask

from . import bases
from .cases import Case, changed, texts

N_LAYERS = 4
KEPT = {
    "attention": {"no_op": False, "replace_with_linear": False, "sparsify": None, "num_key_value_heads": 2},
    "ffn": {"no_op": False, "moe": None, "intermediate_size": 64},
    "parallel_blocks": None,
}
GONE = {"attention": {"no_op": True}, "ffn": {"no_op": True}}
FORMS: dict[str, dict[str, Any]] = {
    "Puzzletron": {"num_hidden_layers": N_LAYERS, "intermediate_size": 64, "block_configs": [GONE, KEPT, KEPT, KEPT]},
    "Puzzletron in parts": {"text_config": {"num_key_value_heads": 2, "block_configs": [KEPT, GONE, KEPT, KEPT]}},
    "LLM-Drop": {"num_hidden_layers": N_LAYERS, "drop_attn_list": [1, 2], "drop_mlp_list": [2, 1]},
    "optipfair": {"pruning_type": "DEPTH", "layer_indices": [1, 2]},
    "ShortV": {"replaced_layers": [1, 2]},
}
LINES = {
    "no numbers": b"--prune-layers",
    "a minus": b"--prune-layers -1",
    "text": b"--prune-layers one,two",
    "a long number": b"--prune-layers " + b"9" * 50_000,
    "many numbers": b",".join([b"1"] * 30_000),
    "an open quote": b"--prune-layers '1,2",
    "many flags": b"--prune-layers 1 " * 3000,
    "a million characters": b"--prune-layers " + b"1," * 500_000,
    "zero bytes": b"--prune-layers 1\0,2",
    "no UTF-8": b"--prune-layers \xff\xfe",
    "a command": b"--prune-layers $(touch made) `touch made`",
}


def use(name: str, folder: Path) -> None:
    """Open a mask as pages do, and look at what it is."""
    mask = open_mask(folder / name, n_layers=N_LAYERS)
    assert mask == open_edit(folder / name, n_layers=N_LAYERS)
    assert mask.n_layers >= 1
    assert mask.words()
    mask.refuses(bases.MODEL)
    assert not (folder / "made").exists()


def _write(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)


def cases() -> Iterator[Case]:
    """Yield every case."""
    read = partial(use, "it.json")
    for form, content in FORMS.items():
        kind = f"mask of {form}"
        for name, text in changed(content):
            yield Case(kind, name, partial(_write, "it.json", text.encode()), read)
        for name, data in texts(json.dumps(content)).items():
            yield Case(kind, name, partial(_write, "it.json", data), read)
    for name, data in LINES.items():
        yield Case("mask of a line", name, partial(_write, "it.txt", data), partial(use, "it.txt"), refused=True)
