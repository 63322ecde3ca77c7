"""The table in docs/ is the one that the checks would write."""

from __future__ import annotations

import re

from .__main__ import TARGET
from .images import IMAGES
from .rows import EXCEPTIONS, KINDS, LOCKS, NOT_BUILT, PRUNED, REFUSED


def test_the_table_has_every_class_with_its_marks() -> None:
    found = re.findall(r"^\| `(\w+)` \(([\w.-]+)\) \| (.*) \|$", TARGET.read_text("utf-8"), re.MULTILINE)
    assert {kind: name for name, kind, _ in found} == KINDS
    for _, kind, cells in found:
        text, image, _, decode, reload, locks, remark = cells.split(" | ")
        assert (text == "✓") == (kind in PRUNED)
        assert (image == "✓") == (kind in IMAGES)
        if kind in PRUNED:
            assert (decode == "✓", reload == "✓") == (
                (kind, "decode") not in EXCEPTIONS,
                (kind, "reload") not in EXCEPTIONS,
            )
            assert locks == str(len(LOCKS.get(kind, {})) or "none")
        else:
            assert (REFUSED | NOT_BUILT)[kind] in remark
