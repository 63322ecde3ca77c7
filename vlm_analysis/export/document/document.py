"""The Document: an Answer as an ordered list of steps, each one sentence with what it is about."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vlm_analysis.assets import BUNDLED_MODELS
from vlm_analysis.errors import ExportError
from vlm_analysis.export.document.price import Price, priced
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.compared.answer import Answer, Example
from vlm_analysis.selection.compared.answerwords import (
    choice_line,
    difference_title,
    examples_title,
    headline,
    model_title,
    provenance,
    retention_title,
    similarity_title,
    speed_line,
)

if TYPE_CHECKING:
    from PIL import Image

MOST_TEXT = 200  # characters of a title or an author
SIDES, MOST_BYTES = (640, 480, 320, 200), 120_000  # of a card's picture: longest side in pixels, bytes
TOY = "A bundled model is small and trained on drawn pictures: findings on it say nothing about large models."


@dataclass(frozen=True)
class Cover:
    """What the user says about a document.

    Attributes:
        title: "" for the question that the document answers.
        author: "" for none.
        date: "" for today, as 2026-11-28.

    Raises:
        ExportError: one of them is longer than 200 characters.
    """

    title: str = ""
    author: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        for name in ("title", "author", "date"):
            text = " ".join(getattr(self, name).split())
            if len(text) > MOST_TEXT:
                raise ExportError(
                    f"The document's {name} is too long: expected {MOST_TEXT} characters at most, got {len(text)}. Shorten it."
                )
            object.__setattr__(self, name, text)


@dataclass(frozen=True)
class Card:
    """An Example with its prompt's picture as a data URI; "" where the picture is not at hand."""

    example: Example
    picture: str


@dataclass(frozen=True, eq=False)
class Step:
    """One sentence, and what it is about: a picture, cards or a table.

    Attributes:
        sentence: what is shown, in words; the picture's alternative text too.
        picture: SVG; "" for none.
        text: more to read, which a presentation leaves out.
        cards: each is a step of a presentation by itself.
        table: rows to read; of a step without picture and cards, they are presented.
    """

    sentence: str
    picture: str = ""
    text: str = ""
    cards: tuple[Card, ...] = ()
    table: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Document:
    """An Answer to hand on.

    Attributes:
        title, author, date: its head; author may be "".
        steps: in the order in which they are shown.
        provenance: where it comes from, as pairs of a name and a text.
        command: the line of a shell that makes it again; "" for none.
    """

    title: str
    author: str
    date: str
    steps: tuple[Step, ...]
    provenance: tuple[tuple[str, str], ...]
    command: str = ""


def document_of(
    answer: Answer,
    recording: Recording | None = None,
    pictures: Mapping[str, Image.Image] | None = None,
    *,
    cover: Cover | None = None,
    price: Price | None = None,
    command: str = "",
) -> Document:
    """Return an Answer as a Document.

    Args:
        answer: of a comparison.
        recording: the one that its masks were chosen on; without it the document does not say why.
        pictures: by prompt id; prompts without one are shown in words.
        cover: title, author and date.
        price: what tokens cost the user; None shows no money.
        command: the line of a shell that makes the document again.
    """
    cover = cover or Cover()
    steps = [_mask(answer), _retention(answer)]
    if price is not None and (told := priced(answer, price)) is not None:
        sentence, text, table = told
        steps.append(Step(sentence, text=text, table=table))
    if answer.examples:
        found = pictures or {}
        cards = tuple(Card(one, picture_uri(found[one.id]) if one.id in found else "") for one in answer.examples)
        steps.append(Step(examples_title(answer), cards=cards))
    return Document(
        title=cover.title or f"Which layers can {model_title(answer.model.name)} do without?",
        author=cover.author,
        date=cover.date or datetime.now(UTC).date().isoformat(),
        steps=(*steps, *([] if recording is None else _why(answer, recording))),
        provenance=(*provenance(answer), *([("Model's size", TOY)] if answer.model.name in BUNDLED_MODELS else [])),
        command=command,
    )


def _mask(answer: Answer) -> Step:
    from vlm_analysis.figures.drawn import strip_svg

    picture = strip_svg(answer.edit, headline(answer), locks=answer.model.locks)
    return Step(headline(answer), picture, f"{choice_line(answer)} {speed_line(answer)}")


def _retention(answer: Answer) -> Step:
    from vlm_analysis.figures.drawn import curve_svg

    sentence, curve = retention_title(answer), answer.curve
    rows = curve[curve["budget"] > 0]
    percent = {name: [_percent(value) for value in rows[name]] for name in ("saved", "value", "low", "high")}
    table = pd.DataFrame(
        {
            "layers dropped": rows["budget"],
            "parameters saved": percent["saved"],
            "domain": rows["domain"],
            "retention": percent["value"],
            "90 % interval": [f"{low} to {high}" for low, high in zip(percent["low"], percent["high"], strict=True)],
            "chosen by": rows["method"],
        }
    )
    return Step(sentence, curve_svg(curve, answer.others, answer.budget, sentence), table=table)


def _why(answer: Answer, recording: Recording) -> list[Step]:
    from vlm_analysis.figures.drawn import difference_svg, similarity_svg

    names, dropped = recording.domain_names, answer.edit.gone
    values = np.stack([recording.layer_similarity(domain) for domain in names])
    sentence = similarity_title(recording)
    steps = [Step(sentence, similarity_svg(values, names, sentence, dropped=dropped), table=_by_layer(values, names))]
    if title := difference_title(recording):
        steps.append(Step(title, difference_svg(values[0] - values[1], (names[0], names[1]), title, dropped=dropped)))
    return steps


def _by_layer(values: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    columns = {name: [f"{value:.3f}" for value in line] for name, line in zip(names, values, strict=True)}
    return pd.DataFrame({"layer": range(values.shape[1]), **columns})


def picture_uri(picture: Image.Image) -> str:
    """Return a picture as a data URI of at most 120 kB before encoding, made smaller as needed."""
    data = b""
    for side in SIDES:
        small, buffer = picture.convert("RGB"), BytesIO()
        small.thumbnail((side, side))
        small.save(buffer, "WEBP", quality=80)
        data = buffer.getvalue()
        if len(data) <= MOST_BYTES:
            break
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.0f} %"
