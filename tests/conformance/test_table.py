"""The table in docs/ is the one that the checks would write, and the README shows its part of it."""

from __future__ import annotations

from .__main__ import head
from .folding import NO_FOLD
from .image_rows import IMAGES
from .narrowing import narrow_mark
from .noise import NOISE
from .readme import BEGIN, END, README, TARGET, block, table
from .rows import EXCEPTIONS, FAMILIES, KINDS, LOCKS, NOT_BUILT, PRUNED, REFUSED
from .skipping import free_for_vision, skipping_mark
from .towers import tower_mark


def test_the_table_has_every_class_with_its_marks() -> None:
    found = table(TARGET.read_text("utf-8"))
    assert {kind: name for kind, (name, _) in found.items()} == KINDS
    for kind, (_, cells) in found.items():
        text, image, _, decode, reload, sweep, vision, fold, width, tower, locks, remark = cells
        assert (text == "✓") == (sweep == "✓") == (kind in PRUNED)
        assert image == ("✓" if kind in IMAGES else "○" if kind in NOISE else "–")
        assert vision == skipping_mark(free_for_vision(kind))
        assert width == (narrow_mark(kind) if kind in PRUNED else "–")
        assert tower == tower_mark(kind)
        assert fold == (NO_FOLD.get(kind, "✓") if kind in PRUNED else "–")
        if kind in PRUNED:
            assert (decode == "✓", reload == "✓") == (
                (kind, "decode") not in EXCEPTIONS,
                (kind, "reload") not in EXCEPTIONS,
            )
            assert locks == str(len(LOCKS.get(kind, {})) or "none")
        else:
            assert (REFUSED | NOT_BUILT)[kind] in remark


def test_the_numbers_above_the_table_are_counted() -> None:
    assert TARGET.read_text("utf-8").startswith(head())


def test_what_is_not_green_says_why() -> None:
    for kind, (_, cells) in table(TARGET.read_text("utf-8")).items():
        assert cells[-1] or not {"✗", "○"} & set(cells), kind
        assert cells[-1] or cells[0] == "✓", kind


def test_the_readme_shows_the_families_as_the_table_has_them() -> None:
    readme = README.read_text("utf-8")
    assert block(TARGET.read_text("utf-8")) in readme
    assert (readme.count(BEGIN), readme.count(END)) == (1, 1)


def test_every_family_is_pruned_and_holds() -> None:
    failing = {kind for kind, _ in EXCEPTIONS}
    assert set(PRUNED) - failing >= FAMILIES.keys()
    assert len(FAMILIES.keys() & IMAGES.keys()) >= 15
