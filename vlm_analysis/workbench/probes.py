"""Probes of the answers with memory: measured once for each model and prompt set, and the part of the Bench that has them."""

from __future__ import annotations

from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.answerprobe import AnswerProbe
from vlm_analysis.workbench.atdesk import AtDesk
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.shelf import keep, open_item, open_whole, whole_items
from vlm_analysis.workbench.workspace import Item, Workspace


def measure_probe(desk: Desk, prompts: Item, progress: Progress, *, name: str = "") -> Item:
    """Probe the answers of the prompts and return the Item of the AnswerProbe."""
    from vlm_analysis.recording.probing import probe_answers

    probe = probe_answers(desk.loaded, open_item(prompts), on_progress=progress)
    return keep(desk.shelf, "probes", probe, name or f"answers of {desk.loaded.name} on {prompts.name}")


def find_probe(shelf: Workspace, model: str | None, prompts: Item) -> Item | None:
    """Return the Item of the newest whole probe of a model (its fingerprint) on prompts, in their groups and tasks; needs no model."""
    known: dict[str, tuple[str, str]] | None = None
    items = (item for item in shelf.items("probes") if (item.model, item.prompts) == (model, prompts.prompts))
    for item, probe in whole_items(items):
        known = _groups_and_tasks(prompts) if known is None else known
        if known is not None and _fits(probe, known):
            return item
    return None


def _groups_and_tasks(prompts: Item) -> dict[str, tuple[str, str]] | None:
    """Return the group and the task of each prompt by its id; None where the prompts cannot be opened."""
    found: PromptSet | None = open_whole(prompts)
    if found is None:
        return None
    return {str(prompt.id): (group, prompt.task or "") for prompt, group in zip(found, found.groups.names, strict=True)}


def _fits(probe: AnswerProbe, known: dict[str, tuple[str, str]]) -> bool:
    """Return whether the probe has its prompts in these groups and tasks, which no fingerprint of prompts holds."""
    rows = zip(probe.ids, probe.groups, probe.tasks, strict=True)
    return all(known.get(name) == (group, task) for name, group, task in rows)


class Probes(AtDesk):
    """Probes of the answers with memory (see `bench.Bench`)."""

    def probe_answers(self, prompts: PromptSet | Item, *, on_progress: Progress = no_progress) -> AnswerProbe:
        """Return how well the answers are told by the mean states around each layer (see `vlm_analysis.probe_answers`).

        It is a pass for each prompt and then the fitting of the probes; one that was stopped begins again.

        Raises:
            RecordingError: no task can be probed, with the reason.
        """
        desk, item = self._at(prompts, on_progress)
        probe: AnswerProbe = open_item(
            find_probe(desk.shelf, desk.model, item) or measure_probe(desk, item, on_progress)
        )
        return probe

    def measure_probe(self, prompts: PromptSet | Item, name: str = "", *, on_progress: Progress = no_progress) -> Item:
        """Save a new probe of the answers."""
        desk, item = self._at(prompts, on_progress)
        return measure_probe(desk, item, on_progress, name=name)
