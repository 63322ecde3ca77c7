"""Token maps beside a recording that someone made up or cut short."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.recording.maps import map_name, read_map

from . import bases
from .cases import Case
from .saved_files import write_zip


def cases() -> Iterator[Case]:
    """Yield all cases of token maps."""
    key = bases.KEYS[0]
    made = bases.token_map()
    words = {"texts": list(made.texts), "grids": [list(grid) for grid in made.grids]}
    whole: dict[str, Any] = {
        "cosine": made.cosine,
        "kinds": made.kinds,
        "words": np.frombuffer(json.dumps(words).encode(), np.uint8),
    }

    def read(folder: Path) -> None:
        read_map(folder / "it.npz", key, bases.N_LAYERS)

    for name, change in {
        "other layers": {"cosine": made.cosine[:2]},
        "a cosine of 7": {"cosine": np.full_like(made.cosine, 7)},
        "float64": {"cosine": made.cosine.astype(float)},
        "fewer tokens": {"kinds": made.kinds[:3]},
        "kinds of 9": {"kinds": np.full_like(made.kinds, 9)},
        "no words": {"words": np.zeros(0, np.uint8)},
        **{
            f"words {name}": {"words": np.frombuffer(json.dumps({**words, **change}).encode(), np.uint8)}
            for name, change in {
                "fewer": {"texts": ["a"]},
                "of numbers": {"texts": [1, 2, 3, 4, 5, 6]},
                "with a grid beyond": {"grids": [[0, 3, 3]]},
                "with a negative grid": {"grids": [[-1, 2, 2]]},
                "with an empty grid": {"grids": [[0, 0, 2]]},
                "with a grid of two": {"grids": [[0, 2]]},
                "with a grid of text": {"grids": ["abc"]},
                "without grids": {"grids": None},
            }.items()
        },
    }.items():
        yield Case("token map", name, functools.partial(_write_map, {**whole, **change}), read, refused=True)
    big = {**whole, "cosine": np.zeros((bases.N_LAYERS, 40_000_000), np.float16)}
    yield Case("token map", "a bomb of 300 MB", functools.partial(_write_map, big), read, refused=True)
    yield Case("token map", "a bomb around it", _write_outer_bomb, read, refused=True)
    yield Case(
        "token map", "nothing", functools.partial(write_zip, "recording", zipfile.ZIP_STORED), read, refused=True
    )


def _write_map(arrays: dict[str, np.ndarray], folder: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with zipfile.ZipFile(folder / "it.npz", "w") as archive:
        archive.writestr(map_name(bases.KEYS[0]), buffer.getvalue())


def _write_outer_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "it.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(map_name(bases.KEYS[0]), bytes(300_000_000))
