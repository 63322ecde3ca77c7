"""`strata show` of prompts: accepted answers and tasks have columns where a prompt has any."""

from __future__ import annotations

from tables import RED

from vlm_analysis import Prompt, PromptSet
from vlm_analysis.cli.results import of_prompts


def test_accepted_answers_and_tasks_are_shown_where_there_are_any() -> None:
    plain = Prompt((RED,), "what?", id="1", answer="net")
    several = Prompt((RED,), "why?", id="2", answers=("net", "a net"), task="reasons")
    shown = of_prompts(PromptSet([plain, several]), None)
    assert shown.table["answers"].tolist() == [[], ["net", "a net"]]
    assert shown.table["task"].tolist() == ["", "reasons"]
    assert shown.data["prompts"][1]["answers"] == ["net", "a net"]
    assert {"answers", "task"}.isdisjoint(of_prompts(PromptSet([plain]), None).table)
