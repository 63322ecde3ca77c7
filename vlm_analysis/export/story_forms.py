"""The forms in which a story leaves the dashboard: one HTML file."""

from __future__ import annotations

from datetime import UTC, datetime

from vlm_analysis.export.report import report_html
from vlm_analysis.export.story import Story, story_sections


def story_html(story: Story) -> bytes:
    """Return the story as one HTML file that opens offline."""
    page = report_html(story.title, story_sections(story), footer=_footer(story))
    return page.encode("utf-8", errors="replace")


def _footer(story: Story) -> str:
    info = story.recording.model
    made = datetime.now(UTC).date().isoformat()
    footer = (
        f"Made by Strata on {made}. Model {info.name}, {info.fingerprint[:16]}; prompts {story.dense.prompts[:16]}."
    )
    if info.name == "pocket-vl":
        footer += (
            " Pocket-VL is a small model trained on drawn pictures: findings on it say nothing about large models."
        )
    return footer
