"""Messages stay short, whatever comes from outside: cells, paths, names and other libraries' messages."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from vlm_analysis import open_prompts
from vlm_analysis.errors import MOST_MESSAGE, PromptError, StrataError, explained, short
from vlm_analysis.prompts.prompts import Problem
from vlm_analysis.ui.common import drafts

LONG = "x" * 50_000


def noise_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_error_is_never_longer_than_a_page_and_keeps_what_to_do() -> None:
    text = str(StrataError(f"It failed: expected one of {LONG}. Choose another."))
    assert len(text) <= MOST_MESSAGE
    assert text.startswith("It failed: expected")
    assert text.endswith("Choose another.")
    assert str(StrataError("It failed.")) == "It failed."


def test_an_unexpected_error_is_shortened_with_its_traceback() -> None:
    try:
        raise RuntimeError(LONG * 10)
    except RuntimeError as error:
        message, trace = explained(error)
    assert len(message) < MOST_MESSAGE + 100
    assert len(trace) <= 20_000


@pytest.mark.parametrize("n_rows", [1, 40])
def test_a_table_of_damaged_pictures_in_cells_is_refused_in_a_few_lines(tmp_path: Path, n_rows: int) -> None:
    cells = [[{"bytes": noise_png()[: 1000 + number], "path": None}] for number in range(n_rows)]
    parquet.write_table(pa.table({"images": cells, "question": ["w1"] * n_rows}), tmp_path / "train.parquet")
    with pytest.raises(PromptError, match="the image could not be decoded") as refused:
        open_prompts(tmp_path / "train.parquet")
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize(
    "table",
    [
        f"image,question\n{LONG}.png,why?\n",
        f"image,question,id\na.png,why?,{LONG}\na.png,why?,{LONG}\n",
        f"image,question,choices\na.png,why?,[{LONG}\n",
        f"{LONG},{LONG}b\n1,2\n",
        f"image,question,{LONG}\na.png,why?,1\n",
        f'image,question\na.png,"why?"{LONG}\n',
    ],
)
def test_long_cells_and_names_never_fill_a_message(folder: Path, table: str) -> None:
    (folder / "prompts.csv").write_text(table)
    try:
        messages = [problem.message for problem in open_prompts(folder).problems]
    except PromptError as error:
        messages = [str(error)]
    assert messages
    assert max(map(len, messages)) < 1500


def test_long_names_in_a_zip_never_fill_a_message() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"../{LONG}.png", b"x")
        archive.writestr(f"{LONG}.png", b"x")
        archive.writestr(f"{LONG[:-1]}.png", b"x")
    with pytest.raises(PromptError) as refused:
        open_prompts(("a.zip", buffer.getvalue()))
    assert len(str(refused.value)) < 3000


def test_a_reason_that_many_rows_share_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(drafts.st, "dataframe", lambda frame, **_: drawn.append(len(frame)))
    drafts.draw_problems([Problem(row, str(row), f"'{row}.png' is not there") for row in range(1, 1000)])
    drafts.draw_problems([Problem(row, str(row), "reason " + "x" * row) for row in range(1, 40)])
    assert drawn == [1, 39]


def test_short_keeps_one_line_of_what_is_long() -> None:
    assert short("a\n  b") == "a b"
    assert short(LONG) == "x" * 199 + "…"
    assert len(short([1] * 10_000)) == 200
