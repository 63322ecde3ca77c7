"""Schemas of saved files: what fits passes, what does not is named with its place, however large it is."""

from __future__ import annotations

from typing import Any

import pytest

from vlm_analysis.guard.schema import Check, different, fields, flag, listed, maybe, number, row, table, text, whole

SCHEMA = fields(
    {"name": text(5, 1), "n": whole(0, 9), "rows": listed(row(text(), number(0, 1)), 1)},
    {"flag": flag, "more": table(maybe(whole()), text(2))},
)
GOOD: dict[str, Any] = {
    "name": "a",
    "n": 3,
    "rows": [["x", 0.5]],
    "flag": True,
    "more": {"k": None},
    "unknown": object(),
}


def test_what_fits_passes_with_and_without_optional_fields() -> None:
    SCHEMA(GOOD, "it")
    SCHEMA({name: GOOD[name] for name in ("name", "n", "rows")}, "it")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ""}, "text of 1 to 5 characters in 'name', got ''"),
        ({"name": "x" * 10**6}, "in 'name', got 'xxx"),
        ({"name": ["a"]}, r"in 'name', got \['a'\]"),
        ({"n": True}, "a whole number from 0 to 9 in 'n', got True"),
        ({"n": 3.0}, "in 'n', got 3.0"),
        ({"n": -1}, "in 'n', got -1"),
        ({"n": 10**4000}, "in 'n', got"),
        ({"rows": []}, r"a list of 1 to 1,000,000 values, not 0, in 'rows', got \[\]"),
        ({"rows": {}}, "in 'rows', got {}"),
        ({"rows": [["x"]]}, r"a list of 2 to 2 values, not 1, in 'rows', got \['x'\]"),
        ({"rows": [["x", 2]]}, "a number from 0 to 1 in 'rows', got 2"),
        ({"rows": [["x", float("nan")]]}, "in 'rows', got nan"),
        ({"flag": 1}, "true or false in 'flag', got 1"),
        ({"more": {"k": "1"}}, "in 'more', got '1'"),
        ({"more": {"long": 1}}, "in the names of 'more', got 'long'"),
    ],
)
def test_what_does_not_fit_is_named_in_few_words(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        SCHEMA(GOOD | change, "it")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_has_no_fields(value: Any) -> None:
    checks: list[Check] = [SCHEMA, table()]
    for check in checks:
        with pytest.raises(ValueError, match="an object"):
            check(value, "it")


def test_missing_fields_are_named() -> None:
    with pytest.raises(ValueError, match="expected 'n', 'rows' in it, got none"):
        SCHEMA({"name": "a"}, "it")


def test_values_that_stand_twice_are_refused() -> None:
    different(["a", "b"], "ids")
    with pytest.raises(ValueError, match="ids that differ"):
        different(["a", "a"], "ids")
