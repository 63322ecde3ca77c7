"""What the README shows of docs/conformance.md: its numbers and the best known families, between two marks."""

from __future__ import annotations

import re
from pathlib import Path

from .rows import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
TARGET, README = ROOT / "docs" / "conformance.md", ROOT / "README.md"
BEGIN, END = "<!-- conformance, written by python -m tests.conformance -->", "<!-- /conformance -->"
ROW = re.compile(r"^\| (?:[^`|]+: )?`(\w+)` \(([\w.-]+)\) \| (.*) \|$", re.MULTILINE)
_BLOCK = """{begin}
{numbers}
✓ checked, ○ checked with noise for the image, – not checked; [every class, what is checked, and the reasons](docs/conformance.md).

<details>
<summary>The best known families</summary>

| class | text | image | prune | decode | reload | sweep | vision | fold | width | tower | locks | remark |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

</details>
{end}"""


def table(text: str) -> dict[str, tuple[str, list[str]]]:
    """Return the rows of docs/conformance.md by model type: the class and the other cells."""
    return {kind: (name, [cell.strip() for cell in cells.split(" | ")]) for name, kind, cells in ROW.findall(text)}


def block(text: str) -> str:
    """Return the README's part, of the text of docs/conformance.md."""
    rows = table(text)
    numbers = re.search(r"^\d+ of \d+ classes .*?\.$", text, re.MULTILINE | re.DOTALL)
    assert numbers is not None
    shown = (
        f"| {FAMILIES[kind]} | {' | '.join(rows[kind][1])} |" for kind in sorted(FAMILIES, key=FAMILIES.__getitem__)
    )
    return _BLOCK.format(begin=BEGIN, numbers=numbers[0], rows="\n".join(shown), end=END)


def with_block(readme: str, text: str) -> str:
    """Return the README with its part written anew."""
    before, _, rest = readme.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, "the README has lost the marks"
    return before + block(text) + after
