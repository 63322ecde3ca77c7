"""Progress in a terminal and in a log."""

from __future__ import annotations

import io

from vlm_analysis.workbench.terminal import CLEAR, shown


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_has_one_line_with_share_message_and_time_left_and_keeps_nothing() -> None:
    screen, clock = Screen(), Clock()
    with shown(screen, clock=clock) as report:
        report(0, 4, "loading")
        clock.now = 10.0
        report(1, 4, "prompt 2 of 4")
        clock.now = 20.0
        report(2, 4, "prompt 3 of 4")
    drawn = screen.getvalue().split(CLEAR)
    assert drawn == ["", "  0 %  loading", " 25 %  prompt 2 of 4", " 50 %  prompt 3 of 4, about 20 s left", ""]


def test_a_terminal_is_not_drawn_more_often_than_eyes_see() -> None:
    screen, clock = Screen(), Clock()
    with shown(screen, clock=clock) as report:
        for step in range(1000):
            clock.now = step / 1000
            report(step, 1000, "step")
    assert 5 <= screen.getvalue().count("step") <= 10


def test_a_log_gets_few_lines_and_no_control_characters() -> None:
    log, clock = io.StringIO(), Clock()
    with shown(log, clock=clock) as report:
        for step in range(61):
            clock.now = float(step)
            report(step, 61, f"step\x1b[2J {step}\r")
    lines = log.getvalue().splitlines()
    assert len(lines) == 5
    assert "about 46 s left" in lines[1]
    assert "\x1b" not in log.getvalue()
    assert "\r" not in log.getvalue()


def test_a_long_message_does_not_wrap(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen()
    with shown(screen) as report:
        report(0, 2, "x" * 100)
    assert max(map(len, screen.getvalue().split(CLEAR))) == 39


def test_quiet_says_nothing() -> None:
    screen = Screen()
    with shown(screen, quiet=True) as report:
        report(1, 2, "step")
    assert screen.getvalue() == ""
