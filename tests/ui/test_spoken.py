"""What the pages say to those who do not see: every chart, table and picture has words of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPOKEN = {"plotly_chart", "dataframe", "data_editor", "table", "image", "offer_table"}
SOURCES = [
    ROOT / "app.py",
    *sorted((ROOT / "pages").glob("*.py")),
    *sorted((ROOT / "vlm_analysis" / "ui").rglob("*.py")),
]


def drawn_without_words(source: str) -> list[str]:
    """Return the calls that draw a chart, a table or a picture without `alt=`, as "line: name"."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    drawn = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
    }  # a value's own table is none of the page
    named = [(call, getattr(call.func, "attr", getattr(call.func, "id", ""))) for call in calls]
    return [
        f"{call.lineno}: {name}"
        for call, name in named
        if name in SPOKEN
        and (name != "table" or id(call) in drawn)
        and "alt" not in {word.arg for word in call.keywords}
    ]


def test_every_chart_table_and_picture_has_a_text_for_those_who_do_not_see_it() -> None:
    silent = {
        str(path.relative_to(ROOT)): found
        for path in SOURCES
        if (found := drawn_without_words(path.read_text("utf-8")))
    }
    assert not silent


@pytest.mark.parametrize(
    "call", ["st.plotly_chart(figure, key='a')", "left.image(picture)", "offer_table(frame, 'a')", "st.table(frame)"]
)
def test_a_chart_without_words_is_found(call: str) -> None:
    assert len(drawn_without_words(call)) == 1
    assert not drawn_without_words(f"{call[:-1]}, alt='Words')")
