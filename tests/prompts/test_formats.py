"""Every format: a source as its makers write it opens from disk and says what it was read as."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from fixtures import FIXTURES

from vlm_analysis import open_prompts, preview_prompts
from vlm_analysis.prompts.formats.table import FORMATS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
FOLDER = Path(__file__).resolve().parents[2] / "vlm_analysis" / "prompts" / "formats"


def test_every_format_has_a_fixture_and_a_line_in_the_documentation() -> None:
    named = re.findall(r"^\| `(\w+)` \|", DOCS.read_text("utf-8"), re.MULTILINE)
    assert sorted(FIXTURES) == sorted(FORMATS) == sorted(named)


def test_every_module_that_names_a_format_is_in_the_table() -> None:
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        assigned = [
            node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAME"
        ]
        for node in assigned:
            assert ast.literal_eval(node.value) in FORMATS, path.name


@pytest.mark.parametrize("name", FIXTURES)
def test_a_source_of_a_format_opens_and_says_what_it_was_read_as(name: str, tmp_path: Path) -> None:
    source = FIXTURES[name](tmp_path)
    prompts = open_prompts(source)
    assert prompts.problems == ()
    assert prompts.read_as is not None
    assert prompts.read_as.title == FORMATS[name].TITLE
    assert prompts.read_as.reason
    assert all(prompt.answer for prompt in prompts) or name == "texts"


@pytest.mark.parametrize("name", ["own", "hub", "vqa", "coco", "imagefolder"])
def test_a_preview_shows_what_would_be_read(name: str, tmp_path: Path) -> None:
    source = FIXTURES[name](tmp_path)
    prompts = open_prompts(source)
    preview = preview_prompts(source)
    assert (preview.title, preview.reason) == prompts.read_as
    assert preview.prompts == tuple(prompts)[:3]
