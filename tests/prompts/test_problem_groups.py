"""Problems of one reason are told as one, with their number, also those that were counted while rows were read."""

from __future__ import annotations

from vlm_analysis.prompts.problems import MOST_OF_ONE, Problems, grouped, problem_lines
from vlm_analysis.prompts.prompts import Problem


def test_what_was_counted_while_reading_is_counted_with_the_rows_that_are_listed() -> None:
    problems = Problems()
    for row in range(1, 1001):
        problems.add(Problem(row, f"row-{row}", "the row has no image"))
    problems.add(Problem(0, "", "two files were left out"))
    whole, rows = grouped(problems.listed())
    assert (whole.message, whole.number, whole.row_words) == ("two files were left out", 1, "")
    assert (rows.number, len(rows.rows)) == (1000, MOST_OF_ONE)
    assert rows.row_words == "1, 2, 3, 4, 5, 6 and 994 more"
    assert problem_lines(problems.listed())[1].startswith(
        "1,000 rows are left out (1, 2, 3, 4, 5, 6 and 994 more), the first: "
    )


def test_a_message_that_reads_like_a_count_is_no_count() -> None:
    one = Problem(3, "3", "7 more rows left out for the same reason: the row has no image")
    (group,) = grouped([one])
    assert (group.message, group.number, group.rows) == (one.message, 1, (3,))


def test_messages_that_differ_in_names_and_numbers_are_one_reason_and_others_are_not() -> None:
    messages = ["'a.png' was not found", "'b c.png' was not found", "got 7 images", "got 1,200 images", "got no image"]
    groups = grouped(Problem(row, str(row), message) for row, message in enumerate(messages, 1))
    assert [(group.message, group.rows) for group in groups] == [
        ("'a.png' was not found", (1, 2)),
        ("got 7 images", (3, 4)),
        ("got no image", (5,)),
    ]
