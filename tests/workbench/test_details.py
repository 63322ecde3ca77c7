"""The details of saved things: short enough for a sidecar, and refused where a page could not read them."""

from __future__ import annotations

from typing import Any

import pytest

from vlm_analysis.workbench.details import MOST_NAMES, check_details, count_domains, domain_details


@pytest.mark.parametrize(
    "details",
    [
        *({"dropped": value} for value in (None, 5, "1", [[1]], [1.0], [-1], [True], [2, 2], {"1": 2})),
        *({"dropped": value, "n_layers": 3} for value in ([3], [0, 1, 2])),
        *({"domains": value} for value in (None, 5, "math", [5], [None])),
        *({name: value} for name in ("n", "n_layers", "n_domains") for value in (None, -1, 2.5, True, "3", 10**12)),
    ],
    ids=str,
)
def test_details_that_no_page_could_read_are_refused(details: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="details '"):
        check_details(details)


@pytest.mark.parametrize(
    "details",
    [{}, {"dropped": [], "n_layers": 1}, {"dropped": [5, 9], "n_layers": 16}, {"dropped": [3]}, {"unknown": None}],
    ids=str,
)
def test_details_as_they_are_saved_pass(details: dict[str, Any]) -> None:
    check_details(details)


def test_domains_are_counted_whether_all_are_named_or_not() -> None:
    many = [str(number) for number in range(MOST_NAMES + 1)]
    told = domain_details(many)
    check_details(told)
    assert (len(told["domains"]), count_domains(told)) == (MOST_NAMES, MOST_NAMES + 1)
    assert count_domains({"domains": ["a", "b"]}) == 2
    assert count_domains({}) == 0
