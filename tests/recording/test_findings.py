"""The sentence on a recording's layers: it names what the numbers say, and keeps silent where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from tools.made import made_recording
from vlm_analysis import Recording
from vlm_analysis.recording.findings import similarity_finding
from vlm_analysis.words import TOKEN_GROUPS


def recording(*rows: list[float], group: str = "all") -> Recording:
    """A recording whose domains have these cosines."""
    made = made_recording(len(rows[0]), [f"d{number}" for number in range(len(rows))])
    for number, values in enumerate(rows):
        made.rows["cosine"][3 * number : 3 * number + 3, :, TOKEN_GROUPS.index(group)] = values
    return made


ROW = [0.5, 0.9, 0.95, 0.99, 0.98, 0.97, 0.8]


def test_domains_that_agree_are_told_together() -> None:
    said = similarity_finding(recording(ROW, ROW))
    assert (
        said
        == "Layers 3, 4 and 5 change their input least on d0 and d1, layer 0 most (cosine 0.500). The domains do not differ."
    )


def test_domains_that_do_not_are_told_one_by_one_with_where_they_differ() -> None:
    other = [0.6, 0.96, 0.99, 0.98, 0.7, 0.97, 0.8]
    assert similarity_finding(recording(ROW, other)) == (
        "Least changed is the input of layers 3, 4 and 5 on d0 and layers 2, 3 and 5 on d1; layer 0 changes it most (cosine 0.550). "
        "The domains differ most at layer 4: cosine 0.700 on d1, 0.980 on d0."
    )


def test_many_domains_are_told_as_their_mean() -> None:
    rows = [ROW, ROW, ROW, [0.5, 0.99, 0.99, 0.9, 0.98, 0.97, 0.8]]
    said = similarity_finding(recording(*rows))
    assert said.startswith(
        "As a mean over 4 domains layers 3, 4 and 5 change their input least, layer 0 most (cosine 0.500)."
    )


@pytest.mark.parametrize(
    ("n_layers", "start"), [(1, "Layer 0 changes its input least"), (3, "Layer 2 changes its input least")]
)
def test_few_layers_and_one_domain(n_layers: int, start: str) -> None:
    assert similarity_finding(recording([0.5, 0.6, 0.7][:n_layers])).startswith(start)


def test_a_group_that_no_prompt_has_tells_nothing() -> None:
    empty = recording(ROW)
    empty.rows["cosine"][:] = np.nan
    empty.rows["token_counts"][:] = 0
    assert similarity_finding(empty) == ""
