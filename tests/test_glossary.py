"""One table of terms: docs and pages say the same of a word, every metric and token group is in it, and no text in it is live."""

from __future__ import annotations

import ast
import html
import re
from functools import cache
from pathlib import Path

import pytest

from vlm_analysis.recording.measures import MEASURES
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.ui.common.terms import SECTIONS, TERMS, explained_html, in_markdown
from vlm_analysis.words import METRIC_TITLES, TOKEN_GROUPS

ROOT = Path(__file__).resolve().parents[1]
ON_SCREEN = sorted(
    (*ROOT.glob("vlm_analysis/ui/**/*.py"), *ROOT.glob("vlm_analysis/figures/*.py"), *ROOT.glob("pages/*.py"))
)
OTHER_WORDS = {  # what nothing on screen says, and the word of the table in its place
    r"importance": "the criterion's name, or damage",
    r"heuristic|scoring rule": "criterion",
    r"original model|unpruned|base model": "dense model",
    r"blocks? (?:are|is|to) (?:dropped|removed|drop)|transformer blocks?": "decoder layer",
    r"(?:remove|delete)s? (?:the |these |those )?(?:decoder )?layers": "drop",
    r"gold answer|ground truth|target answer": "answer",
    r"categor(?:y|ies) of prompts": "domain",
}


def test_the_glossary_of_the_docs_is_the_table() -> None:
    """Where this fails, write `expected` into docs/glossary.md."""
    sections = "\n\n".join(f"## {section}\n\n{in_markdown(section)}" for section in SECTIONS)
    expected = (
        "# Glossary\n\nThe words of Strata, one for each thing. The Glossary page of the dashboard has them too, with every criterion, "
        f"strategy\nand measure.\n\n{sections}\n"
    )
    assert (ROOT / "docs" / "glossary.md").read_text("utf-8") == expected


def test_no_term_is_in_two_sections_or_has_the_title_of_another() -> None:
    assert len(TERMS) == sum(map(len, SECTIONS.values()))
    assert len({term.title for term in TERMS.values()}) == len(TERMS)


def test_every_metric_and_token_group_is_a_term_under_its_own_title() -> None:
    assert {name: TERMS[name].title for name in METRIC_TITLES} == METRIC_TITLES
    assert {f"tokens_{name}" for name in TOKEN_GROUPS} <= set(TERMS)
    assert TERMS["similarity"].title == MEASURES["cosine"].title
    assert TERMS["block_influence"].title == CRITERIA["block-influence"].title


def test_a_marked_term_takes_the_focus_and_names_its_explanation() -> None:
    drawn = explained_html("a [[mask|masks]] of [[layer]]s")
    terms = re.findall(r'<span class="strata-term" tabindex="0" aria-describedby="(term-[a-z]+)-(\w+)">([^<]*)<', drawn)
    assert [(name, shown) for name, _, shown in terms] == [("term-mask", "masks"), ("term-layer", "decoder layer")]
    line = terms[0][1]
    assert f'<span id="term-mask-{line}" role="tooltip">Mask: {html.escape(TERMS["mask"].meaning)}</span>' in drawn
    assert f"-{line}" not in explained_html("another line with a [[mask]]")  # a name stands once on a page


def test_what_is_not_a_term_is_escaped_and_a_word_that_is_not_in_the_table_refused() -> None:
    assert "&lt;img src=x onerror=y&gt;" in explained_html("<img src=x onerror=y> [[mask|<b>]]")
    assert "<b>" not in explained_html("[[mask|<b>]]")
    assert explained_html("", "[[mask]] [[importance]] <b>").count('strata-term"') == 0
    with pytest.raises(KeyError, match="importance"):
        explained_html("[[importance]]")


def test_all_marks_of_the_pages_are_in_the_table() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "app.py", *ROOT.glob("pages/*.py"))]
    marked = [key for text in texts for key in re.findall(r"\[\[([a-z_]+)[|\]]", text)]
    assert len(marked) > 8
    assert set(marked) <= set(TERMS)


@cache
def texts_of(path: Path) -> list[str]:
    """Return the texts of a module but for its docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said)
    return [node.value for node in constants if isinstance(node.value, str)]


@pytest.mark.parametrize("other", OTHER_WORDS)
def test_the_screen_has_one_word_for_each_thing(other: str) -> None:
    """The word in its place is `OTHER_WORDS[other]`."""
    word = re.compile(rf"\b(?:{other})\b", re.IGNORECASE)
    assert [(path.name, text) for path in ON_SCREEN for text in texts_of(path) if word.search(text)] == []
