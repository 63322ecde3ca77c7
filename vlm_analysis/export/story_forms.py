"""A story as plain text for a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import fill

import pandas as pd

from vlm_analysis.assets import BUNDLED_MODELS
from vlm_analysis.export.document.document import TOY
from vlm_analysis.export.story import Story, outcome_frame, story_sections
from vlm_analysis.words import counted


def story_text(story: Story, width: int = 100) -> str:
    """Return the story as plain text: the scores by domain, then what stands beside and in place of the pictures."""
    parts = [f"{story.title}\n{'=' * len(story.title)}", _scores(story)]
    for section in story_sections(story):
        lines = [fill(section.heading, width), *(fill(part, width) for part in section.text.split("\n\n"))]
        if section.table is not None:
            lines += [_row(section.table.iloc[row], width) for row in range(len(section.table))]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, fill(_footer(story), width)])


def _scores(story: Story) -> str:
    """Return the scores of the dense and the pruned model, one line a domain and metric."""
    method, mask = story.shown
    frame = outcome_frame(story.pruned, story.dense).rename(
        columns={"pruned": f"without {counted(mask.budget, 'layer')}"}
    )
    shown = frame.set_index(["domain", "metric"]).map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
    table = shown.rename_axis([None, None]).to_string()
    return f"Scores, dense and without {mask.budget} of {mask.n_layers} layers ({method})\n{table}"


def _row(row: pd.Series, width: int) -> str:
    return fill(
        "; ".join(f"{name}: {value}" for name, value in row.items()), width, initial_indent="- ", subsequent_indent="  "
    )


def _footer(story: Story) -> str:
    info = story.recording.model
    date = datetime.now(UTC).date().isoformat()
    footer = (
        f"Made by Strata on {date}. Model {info.name}, {info.fingerprint[:16]}; prompts {story.dense.prompts[:16]}."
    )
    if info.name in BUNDLED_MODELS:
        footer += f" {TOY}"
    return footer
