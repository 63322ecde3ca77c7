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
from vlm_analysis.files import write_atomically

FOLDER = "maps"
MAX_MAP_BYTES = 1 << 28


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

    write_atomically(folder / FOLDER / f"{key}.npz", write)


def read_map(where: Path, key: str) -> TokenMap:
    """Return one prompt's map from a recording's folder or file.

    Raises:
        RecordingError: it is missing or damaged.
    """
    try:
        data = _member(where, key)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            if sum(member.file_size for member in stored.zip.infolist()) > MAX_MAP_BYTES:
                raise ValueError("it unpacks to more than one prompt can need")
            cosine, kinds = stored["cosine"], stored["kinds"]
            words = json.loads(stored["words"].tobytes())
        texts = tuple(str(text) for text in words["texts"])
        grids = tuple((int(first), int(rows), int(columns)) for first, rows, columns in words["grids"])
        if cosine.ndim != 2 or not len(texts) == len(kinds) == cosine.shape[1]:
            raise ValueError("its parts are of different lengths")
        if any(
            first < 0 or rows < 1 or columns < 1 or first + rows * columns > len(kinds)
            for first, rows, columns in grids
        ):
            raise ValueError("a grid lies outside its tokens")
    except Exception as error:  # damaged bytes make numpy and zlib raise a dozen kinds
        raise RecordingError(
            f"The token map of this prompt cannot be read from {where.name}: {short(error)}. Record again with token maps."
        ) from error
    return TokenMap(cosine.astype(np.float16, copy=False), kinds.astype(np.int8, copy=False), texts, grids)


def _member(where: Path, key: str) -> bytes:
    if where.is_dir():
        return (where / FOLDER / f"{key}.npz").read_bytes()
    with zipfile.ZipFile(where) as archive:
        return archive.read(f"{FOLDER}/{key}.npz")


def append_maps(where: Path | None, file: Path, keys: Iterable[str]) -> None:
    """Add the maps of `keys` as members to a recording's file; they are compressed already."""
    if where is None:
        return
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for key in keys:
            archive.writestr(f"{FOLDER}/{key}.npz", _member(where, key))


def copy_maps(where: Path | None, folder: Path, keys: Iterable[str]) -> None:
    """Copy the maps of `keys` from a recording's folder or file into another folder."""
    if where is None:
        return
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for key in keys:
        (folder / FOLDER / f"{key}.npz").write_bytes(_member(where, key))
