"""Token maps: every token of a prompt, found again in the recording's file, with where image tokens lie in the image."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from oracles import ask, cosine, ids_of, walk
from PIL import Image

from vlm_analysis import LoadedModel, Prompt, PromptSet, open_recording, record, save_recording
from vlm_analysis.errors import RecordingError
from vlm_analysis.recording.maps import FOLDER, TokenMap, read_map, write_map

KEY = "0" * 32


def small() -> TokenMap:
    return TokenMap(np.ones((2, 5), np.float16), np.zeros(5, np.int8), tuple("abcde"), ((0, 2, 2),))


def test_every_token_has_its_cosine_and_the_image_its_grid(loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
    path = save_recording(record(loaded, few, token_maps=True), tmp_path / "maps.npz")
    recording = open_recording(path)
    for number, prompt in enumerate(few):
        xs, ys = walk(loaded, ask(loaded, prompt, ids_of(loaded, prompt.answer or "")))
        found = recording.token_map(number)
        wanted = [cosine(x, y) for x, y in zip(xs, ys, strict=True)]
        np.testing.assert_allclose(found.cosine, wanted, atol=6e-4)  # float16 near 1
        ((first, rows, columns),) = found.grids
        assert (found.kinds[first : first + rows * columns] == 0).all()
        assert (found.kinds == 0).sum() == rows * columns == 16
        assert len(found.texts) == found.cosine.shape[1]


def test_an_oblong_image_and_two_images_have_grids_of_their_own(loaded: LoadedModel) -> None:
    wide, high = Image.new("RGB", (256, 64), "red"), Image.new("RGB", (64, 128), "blue")
    found = record(loaded, [Prompt((wide, high), "what?")], token_maps=True).token_map(0)
    assert [(rows, columns) for _, rows, columns in found.grids] == [(2, 8), (5, 2)]


def test_a_recording_without_maps_says_how_to_get_them(loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
    path = save_recording(record(loaded, few[:1]), tmp_path / "plain.npz")
    with pytest.raises(RecordingError, match="Record again with token maps"):
        open_recording(path).token_map(0)


def test_a_map_cut_short_or_of_parts_that_do_not_fit_is_refused(tmp_path: Path) -> None:
    write_map(tmp_path, KEY, small())
    data = (tmp_path / FOLDER / f"{KEY}.npz").read_bytes()
    assert read_map(tmp_path, KEY).texts == tuple("abcde")
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        archive.writestr(f"{FOLDER}/{KEY}.npz", data[:-30])
    with pytest.raises(RecordingError, match=r"cannot be read from file\.npz"):
        read_map(tmp_path / "file.npz", KEY)
    for spoilt in (
        TokenMap(small().cosine[:, :4], small().kinds, small().texts, ()),
        TokenMap(small().cosine, small().kinds, small().texts, ((3, 2, 2),)),
        TokenMap(small().cosine, small().kinds, small().texts, ((0, -2, -2),)),
    ):
        write_map(tmp_path, KEY, spoilt)
        with pytest.raises(RecordingError, match="cannot be read"):
            read_map(tmp_path, KEY)
    with pytest.raises(RecordingError, match="cannot be read"):
        read_map(tmp_path, "1" * 32)
