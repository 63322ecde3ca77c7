"""Token maps: every token's cosine at every layer of single prompts, kept on disk. Needs no torch.

While a recording is made they are small `.npz` files in its folder; saved, they are members of the recording's own file.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlm_analysis.errors import RecordingError, short
from vlm_analysis.files import opened, read_bytes, write_atomically
from vlm_analysis.guard.memory import refuse_larger
from vlm_analysis.guard.schema import fields, listed, row, text, whole
from vlm_analysis.guard.zips import opened_zip
from vlm_analysis.saved import MAX_ENTRIES, Arrays

FOLDER = "maps"
MAX_MAP_BYTES = 1 << 28
COSINE_MOST = 1.01  # float16 rounds
WORDS = fields({"texts": listed(text()), "grids": listed(row(whole(), whole(1), whole(1)))})


@dataclass(frozen=True, eq=False)
class TokenMap:
    """One prompt, token by token.

    Attributes:
        cosine: (n_layers, n_tokens) float16, cosine of a layer's true input and raw output; NaN for layers not run.
        kinds: (n_tokens,) int8: 0 vision, 1 text, 2 answer.
        texts: (n_tokens,) what the tokenizer calls each token.
        grids: one (first token, rows, columns) for each image whose vision tokens lie on a known grid, in reading order.
    """

    cosine: np.ndarray
    kinds: np.ndarray
    texts: tuple[str, ...]
    grids: tuple[tuple[int, int, int], ...]


def write_map(folder: Path, key: str, token_map: TokenMap) -> None:
    """Write one prompt's map into a recording's folder."""
    words = json.dumps({"texts": token_map.texts, "grids": token_map.grids}).encode()

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez_compressed(
                file, cosine=token_map.cosine, kinds=token_map.kinds, words=np.frombuffer(words, np.uint8)
            )

    write_atomically(folder / map_name(key), write)


def read_map(where: Path, key: str, n_layers: int | None = None) -> TokenMap:
    """Return one prompt's map from a recording's folder or file, of a model of `n_layers` where that is known.

    Raises:
        RecordingError: it is missing or damaged.
    """
    try:
        with opened_zip(io.BytesIO(_member(where, key)), 3) as stored:
            arrays = Arrays(stored, MAX_MAP_BYTES)
            cosine = arrays.get("cosine", np.float16, (n_layers, None))
            kinds = arrays.get("kinds", np.int8, (cosine.shape[1],))
            words = arrays.text("words")
        WORDS(words, "its words")
        texts, grids = tuple(words["texts"]), tuple((first, rows, columns) for first, rows, columns in words["grids"])
        _check(cosine, kinds, texts, grids)
    except Exception as error:  # damaged bytes make numpy and zlib raise a dozen kinds
        raise RecordingError(
            f"The token map of this prompt cannot be read from {where.name}: {short(error)}. Record again with token maps."
        ) from error
    return TokenMap(cosine, kinds, texts, grids)


def _check(
    cosine: np.ndarray, kinds: np.ndarray, texts: tuple[str, ...], grids: tuple[tuple[int, int, int], ...]
) -> None:
    if len(texts) != len(kinds):
        raise ValueError(f"expected the texts of {len(kinds)} tokens, got {len(texts)}")
    if np.any(np.abs(cosine) > COSINE_MOST) or not np.isin(kinds, (0, 1, 2)).all():
        raise ValueError("expected cosines from -1 to 1 and kinds from 0 to 2, got others")
    if any(first + rows * columns > len(kinds) for first, rows, columns in grids):
        raise ValueError("expected grids of its tokens, got one beyond them")


def map_name(key: str) -> str:
    """Return the name of the map of the prompt with this key, in a recording's folder or file."""
    return f"{FOLDER}/{key}.npz"


def _member(where: Path, key: str) -> bytes:
    if where.is_dir():
        return read_bytes(where / map_name(key), MAX_MAP_BYTES)
    with opened(where) as file, opened_zip(file, MAX_ENTRIES) as archive:
        refuse_larger(archive.getinfo(map_name(key)).file_size, MAX_MAP_BYTES)
        return archive.read(map_name(key))


def append_maps(where: Path | None, file: Path, keys: Iterable[str]) -> None:
    """Add the maps of `keys` as members to a recording's file; they are compressed already."""
    if where is None:
        return
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for key in keys:
            archive.writestr(map_name(key), _member(where, key))


def copy_maps(where: Path | None, folder: Path, keys: Iterable[str]) -> None:
    """Copy the maps of `keys` from a recording's folder or file into another folder."""
    if where is None:
        return
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for key in keys:
        (folder / map_name(key)).write_bytes(_member(where, key))
