"""The document of a saved comparison: its answer with the pictures of its examples, and the line that makes it again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from vlm_analysis.errors import StrataError
from vlm_analysis.export.document.document import Cover, Document, document_of
from vlm_analysis.export.document.price import Price
from vlm_analysis.export.story import answer_in
from vlm_analysis.prompts.images import open_image
from vlm_analysis.selection.compared.answer import Answer, answer_of
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.workbench.costs import find_costs
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.stories import open_saved_story
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from PIL import Image


def document_for(
    shelf: Workspace, item: Item, budget: int | None = None, *, cover: Cover | None = None, price: Price | None = None
) -> Document:
    """Return the Document of a saved comparison, or of a story of version 0.1, at a budget, by default the recommended one; needs no model.

    Its prompts and its recording are those saved with it, else others of the same fingerprints; what is not saved any more is left out.

    Raises:
        StrataError: the comparison is damaged, or has no mask at this budget.
    """
    if item.kind == "stories":
        story = open_saved_story(shelf, item)
        answer, recording = answer_in(story), story.recording
    else:
        comparison: Comparison = open_item(item)
        costs, _ = find_costs(shelf, comparison.dense.model.fingerprint, None)
        answer = answer_of(comparison, budget, costs=costs)
        recording = _part(shelf, item, "recordings", comparison.chosen_on)
    line = report_line(item, answer.budget, cover, price)
    return document_of(answer, recording, _pictures(shelf, item, answer), cover=cover, price=price, command=line)


def report_line(item: Item, budget: int | None, cover: Cover | None, price: Price | None) -> str:
    """Return the line of the command that writes the document, quoted for a shell."""
    options: dict[str, object] = {"budget": budget}
    if cover is not None:
        options |= {"title": cover.title, "author": cover.author, "date": cover.date}
    if price is not None:
        options |= {"price-in": f"{price.prompt:g}", "price-out": f"{price.response:g}", "currency": price.currency}
    pairs = [f"--{name}={value}" for name, value in options.items() if value not in ("", None)]
    return shlex.join(["strata", "report", item.id, *pairs, "--out", "report.html"])


def _part(shelf: Workspace, item: Item, kind: str, prompts: str) -> Any:
    """Return the value of a part of the comparison: the one saved with it, else the newest of these prompts; None where there is none."""
    part = shelf.find(kind, str(item.details.get(kind)))
    if part is None:
        part = next(
            (one for one in shelf.items(kind) if one.prompts == prompts and one.model in ("", item.model)), None
        )
    try:
        return None if part is None else open_item(part)
    except StrataError:
        return None


def _pictures(shelf: Workspace, item: Item, answer: Answer) -> dict[str, Image.Image]:
    """Return the first picture of each example's prompt, by its id, as far as they can be opened."""
    wanted, found = {one.id for one in answer.examples}, {}
    for prompt in _part(shelf, item, "prompts", answer.reported_on[0]) or ():
        if prompt.id in wanted:
            try:
                found[str(prompt.id)] = open_image(prompt.images[0])
            except StrataError:
                continue
    return found
