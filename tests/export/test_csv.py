"""CSV files hold what the table holds, and nothing that a spreadsheet would run."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from vlm_analysis.export.tables import table_csv


@pytest.mark.parametrize("text", ["=1+1", "=HYPERLINK(1)", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1"])
def test_text_that_begins_like_a_formula_is_quoted_in_cells_and_names(text: str) -> None:
    back = pd.read_csv(io.StringIO(table_csv(pd.DataFrame({text: [text, "red"]}))), keep_default_na=False)
    assert back.columns.tolist() == [f"'{text}"]
    assert back.iloc[:, 0].tolist() == [f"'{text}", "red"]


def test_numbers_are_written_as_they_are_also_in_text() -> None:
    frame = pd.DataFrame({"n": [-1.5, 2.0], "answer": ["-5", "+0.5"], "right": [True, False], "ids": [[1, 2], []]})
    assert table_csv(frame) == 'n,answer,right,ids\n-1.5,-5,True,"[1, 2]"\n2.0,+0.5,False,[]\n'


def test_the_table_itself_is_left_alone() -> None:
    frame = pd.DataFrame({"a": pd.Series(["=1"], dtype="category")})
    table_csv(frame)
    assert frame["a"].tolist() == ["=1"]
