"""The jobs that tell a story: the demo and the same comparison on the user's own model."""

from __future__ import annotations

from vlm_analysis.progress import Progress
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.ui.common.work import Work
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.stories import demo, tell_story
from vlm_analysis.workbench.workspace import Item


def demo_work() -> Work:
    """Run the demo in the process-wide place of the model; returns the Item of the story."""
    slot, shelf = model_slot(), workspace()
    return lambda progress: demo(slot, shelf, progress)


def story_work(prompts: Item) -> Work:
    """Tell the story of the loaded model on a prompt set; returns its Item."""
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint

    def work(progress: Progress) -> Item:
        slot.expected(model)
        return tell_story(slot, shelf, open_item(prompts), prompts, progress)

    return work
