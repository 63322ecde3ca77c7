"""The formats, most specific first, and which of them a source is in."""

from __future__ import annotations

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.formats import (
    alpaca,
    cauldron,
    coco,
    completion,
    hub,
    imagefolder,
    llava,
    lmms,
    messages,
    own,
    sharegpt,
    swift,
    texts,
    vlmevalkit,
    vqa,
)
from vlm_analysis.prompts.formats.base import Format, Sample
from vlm_analysis.prompts.formats.benchmarks.table import BENCHMARKS

# A line is more specific than the lines below it. Two formats of one line that both match are the user's to choose from.
RANKS: tuple[tuple[Format, ...], ...] = (
    (sharegpt, alpaca, coco, vqa, *BENCHMARKS),
    (vlmevalkit,),
    (lmms,),
    (own,),
    (llava, messages, completion, swift, cauldron),
    (imagefolder,),
    (hub,),
    (texts,),
)
FORMATS = {one.NAME: one for rank in RANKS for one in rank}


def recognise(sample: Sample, name: str | None = None) -> tuple[Format, str]:
    """Return the format of a source, and by what it was recognised.

    Args:
        sample: the beginning of the source.
        name: a key of `FORMATS`; the source is read as this format even where it is not recognised.

    Raises:
        PromptError: there is no such format, none matches, or two that match are equally specific.
    """
    if name is not None:
        chosen = FORMATS.get(name)
        if chosen is None:
            raise PromptError(
                f"format={short(repr(name))} is unknown: expected one of {', '.join(map(repr, FORMATS))}."
            )
        return chosen, chosen.matches(sample) or "as you said"
    for rank in RANKS:
        found = [(one, reason) for one in rank if (reason := one.matches(sample))]
        if len(found) > 1:
            raise _ambiguous(sample, found)
        if found:
            return found[0]
    raise _unknown(sample)


def misread(sample: Sample, name: str | None) -> str:
    """Return what to say of a source in another format than the one named; "" where it fits, or where no other is recognised."""
    if name not in FORMATS or not (sample.columns or sample.parts) or FORMATS[name].matches(sample):
        return ""
    try:
        other, reason = recognise(sample)
    except PromptError:
        return ""
    return (
        f"'{short(sample.name)}' could not be read: expected {FORMATS[name].TITLE}, as you said, got {other.TITLE} "
        f'({short(reason, 120)}). Choose: open_prompts(..., format="{other.NAME}").'
    )


def _ambiguous(sample: Sample, found: list[tuple[Format, str]]) -> PromptError:
    readings = " or ".join(f"{one.TITLE} ({short(reason, 120)})" for one, reason in found)
    names = " or ".join(f'format="{one.NAME}"' for one, _ in found)
    return PromptError(
        f"'{short(sample.name)}' can be read in {len(found)} ways: expected one format, got {readings}. "
        f"Choose: open_prompts(..., {names})."
    )


def _unknown(sample: Sample) -> PromptError:
    if sample.parts:
        parts = ", ".join(short(repr(part), own.MAX_NAME_SHOWN) for part in list(sample.parts)[: own.MAX_SHOWN])
        return PromptError(
            f"'{short(sample.name)}' could not be read: expected one list of prompts, got an object with {parts}. "
            "Save the list of prompts alone."
        )
    return PromptError(
        f"'{short(sample.name)}' could not be read: expected the columns {own.EXPECTED}, got {own.shown_columns(sample.columns, sample)}. "
        'Rename the columns, or name yours: open_prompts(..., columns={"image": …, "question": …}). A CSV separates them by commas.'
    )
