"""A number stands with its noun by `counted`, so that one is singular: no text puts a plural behind a number that may be 1."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ON_SCREEN = ("ui", "workbench", "cli", "figures", "selection")
SOURCES = sorted(path for room in ON_SCREEN for path in (ROOT / "vlm_analysis" / room).rglob("*.py"))
NOUNS = (
    "answers candidates changes choices comparisons domains draws edits evaluations files groups images jobs layers "
    "masks methods minutes others passes pictures points prompts questions recordings responses rounds rows runs scores seconds "
    "tasks texts times tokens words"
)
PLURAL = re.compile(rf"^ (?:more |other |different |new )?(?:{NOUNS.replace(' ', '|')})\b|^\(s\)")
COUNT = re.compile(r"len\(|(.*\.)?(n_|budget|count|number|runs|rounds|total|times|length|stated)")
NAMES_MASKS = ("many.py", "pipeline.py")  # as version 0.1 named them, whose unfinished comparisons go on
NEVER_ONE = ("n_layers", "n_layers_before")  # no model has one decoder layer


def unsure(tree: ast.AST) -> list[str]:
    """Return each number with its plural in a text; not those of errors, which bounds are in."""
    raised = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Raise) for inner in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in raised:
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    number = ast.unparse(value.value)
                    if COUNT.match(number) and number.split(".")[-1] not in NEVER_ONE and PLURAL.match(str(text.value)):
                        found.append(f"line {node.lineno}: {{{number}}}{text.value}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT / "vlm_analysis").as_posix())
def test_numbers_stand_with_their_nouns_by_counted(path: Path) -> None:
    found = unsure(ast.parse(path.read_text("utf-8")))
    assert [one for one in found if path.name not in NAMES_MASKS or "{budget} layers" not in one] == []


def test_a_plural_behind_a_number_is_found() -> None:
    assert unsure(ast.parse('f"{n_left} layers go"')) == ["line 1: {n_left} layers go"]
    assert unsure(ast.parse('f"{MOST} layers go, {info.n_layers} layers, {counted(n, noun)} go"')) == []
