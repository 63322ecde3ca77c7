"""The Glossary page: the terms by section, then criteria, strategies and measures as their tables have them."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.recording.measures import MEASURES
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.ui.common.terms import SECTIONS, in_markdown
from vlm_analysis.ui.common.text import NEEDS, escaped


def draw_glossary() -> None:
    """Draw a search, and below it each section with the terms that hold what is searched."""
    find = st.text_input(
        "Find",
        key="glossary_find",
        placeholder="retention",
        help="Shows the words whose name, meaning or source holds this text.",
    ).strip()
    found = {section: text for section in SECTIONS if (text := in_markdown(section, find))} | {
        title: text for title, rows in _tables().items() if (text := "\n\n".join(_holding(rows, find)))
    }
    if not found:
        st.info("No word holds this text. Search for a part of it.", icon=":material/search_off:")
    for section, text in found.items():
        st.subheader(section)
        st.markdown(text)


def _holding(rows: list[tuple[str, str, str]], find: str) -> list[str]:
    """Return the rows (title, what it computes or needs, source) that hold a text, as Markdown."""
    return [
        f"**{escaped(title)}**: {escaped(about)}" + (f" ({escaped(source)})" if source else "")
        for title, about, source in rows
        if find.lower() in f"{title} {about} {source}".lower()
    ]


def _tables() -> dict[str, list[tuple[str, str, str]]]:
    """Return title, what it computes or needs, and source of every criterion, strategy and measure."""
    criteria = [
        (row.title, f"{row.formula}; the {row.drop} go first. Needs {NEEDS[row.needs]}.", row.source)
        for row in CRITERIA.values()
    ]
    strategies = [(row.title, f"Needs {NEEDS[row.needs]}.", row.source) for row in STRATEGIES.values()]
    measures = [(row.title, row.formula, row.source) for row in MEASURES.values()]
    return {"Criteria": criteria, "Strategies": strategies, "Measures": measures}
