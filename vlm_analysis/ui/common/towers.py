"""What is said of the layers of a vision encoder: which stay and why, and why a recording has no numbers of them."""

from __future__ import annotations

from vlm_analysis.model_info import TowerInfo
from vlm_analysis.recording.recording import Recording
from vlm_analysis.words import by_reason, layers as layer_words, sentence


def reasons(tower: TowerInfo) -> list[str]:
    """Return a sentence for each reason for which layers stay, locked ones first, and one for those that nothing reads; as plain text."""
    said: list[str] = []
    for kind, kept in (("locked", tower.locked), ("protected", tower.protected)):
        for reason, layers in by_reason(kept).items():
            said.append(f"{sentence(layer_words(layers))} {'is' if len(layers) == 1 else 'are'} {kind}: {reason}.")
    if tower.unread:
        verb = "runs" if len(tower.unread) == 1 else "run"
        said.append(f"{sentence(layer_words(tower.unread))} {verb} for nothing: nothing reads the output.")
    return said


def absent(recording: Recording) -> str:
    """Return why a recording has no numbers of the vision encoder, as plain text."""
    tower = recording.model.tower
    if tower is not None and tower.missing:
        return f"This recording has no numbers of the vision encoder: {tower.missing}."
    if tower is None:
        return "This recording is older than the measure of the vision encoder's layers. Record again to see them."
    return (
        "This recording has no numbers of the vision encoder: its prompts have no image, or it is not known which tokens of a batch are "
        "whose. Record prompts with images, with a batch size of 1."
    )
