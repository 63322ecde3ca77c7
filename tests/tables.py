"""Prompt tables on disk, and what was read from them in short."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from vlm_analysis import PromptSet, open_prompts

RED, BLUE = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))


def from_csv(folder: Path, text: str | bytes) -> PromptSet:
    table = folder / "prompts.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_prompts(table)


def from_jsonl(folder: Path, *rows: object) -> PromptSet:
    table = folder / "prompts.jsonl"
    table.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return open_prompts(table)


def questions(prompts: PromptSet) -> list[str]:
    return [prompt.question for prompt in prompts]


def rows(prompts: PromptSet) -> list[tuple[int, str]]:
    return [(problem.row, problem.id) for problem in prompts.problems]
