"""Where answers reason: marks in a text, the tokens they begin in, and the windows around these."""

from __future__ import annotations

import pytest

from vlm_analysis import find_pivots
from vlm_analysis.evaluation.pivots import even_splits, in_windows, pivot_tokens


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        ("step 1: 2 circles. step 2: 5 triangles. therefore 7", ["step 1", "step 2", "therefore"]),
        ("First, we add. Then 2 + 3 = 5, so it is 5. Thus 5", ["First", "Then", "=", "so", "Thus"]),
        ("1. add\n2) carry\nhence 4", ["1.", "2)", "hence"]),
        ("the first shape is so red that steps 3 are not <= or == it", []),
        ("6", []),
    ],
)
def test_marks_of_steps_are_found_where_a_reader_sees_them(answer, marked):
    found = find_pivots(answer)
    assert [answer[pivot.start : pivot.end].strip() for pivot in found] == marked
    assert [pivot.start for pivot in found] == sorted(pivot.start for pivot in found)


def test_a_pivot_stands_at_the_token_in_which_it_begins_and_special_tokens_hold_none():
    answer = "so 2 = 2"
    spans = [(0, 0), (0, 2), (2, 4), (4, 5), (5, 8), (8, 8)]
    assert pivot_tokens(find_pivots(answer), spans) == (1, 4)


def test_a_window_reaches_so_far_on_each_side_or_is_so_long_in_all():
    assert list(in_windows(20, [10], 3).nonzero()[0]) == list(range(7, 14))
    assert list(in_windows(20, [10], 4, "all").nonzero()[0]) == [8, 9, 10, 11]
    assert list(in_windows(20, [10], 1, "all").nonzero()[0]) == [10]
    assert list(in_windows(6, [0, 5], 1).nonzero()[0]) == [0, 1, 4, 5]
    assert not in_windows(6, []).any()


def test_an_answer_without_marks_is_split_evenly_unless_it_is_too_short_for_steps():
    assert even_splits(16) == (4, 8, 12)
    assert even_splits(15) == ()
    assert even_splits(8, window=4) == (2, 4, 6)
    assert even_splits(3, window=1) == ()
