"""A Document as one HTML file: to read, to print, and to present with arrow keys.

The file loads nothing, and a content security policy allows its own script and style only, by their hashes. All text may come from users
and is escaped. Without scripts it reads and prints the same.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from vlm_analysis import __version__
from vlm_analysis.errors import ExportError
from vlm_analysis.evaluation.diff import Piece
from vlm_analysis.export.document.document import Card, Document, Step
from vlm_analysis.files import write_atomically

SIGNS = {"lost": "×", "gained": "+", "kept": "✓"}


def write_document(document: Document, path: Path) -> Path:
    """Write a Document to `path` as one HTML file and return `path`; a file there is replaced whole.

    Raises:
        ExportError: the file cannot be written.
    """
    page = document_html(document).encode("utf-8", errors="replace")
    try:
        return write_atomically(Path(path), lambda part: part.write_bytes(page))
    except (OSError, ValueError) as error:
        raise ExportError(
            f"The document was not written: expected a writable file name, got '{path}' ({getattr(error, 'strerror', None) or error}). "
            "Choose another folder or free some space."
        ) from error


def document_html(document: Document, *, presenting: bool = False) -> str:
    """Return a Document as one HTML page that loads nothing; `presenting` begins with the presentation, in a frame of the dashboard."""
    style, script = (_read(name) for name in ("document.css", "document.js"))
    allowed = f"script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    by = " · ".join(filter(None, (document.author, document.date)))
    steps = "".join(_step(step, place) for place, step in enumerate(document.steps))
    return (
        f'<!DOCTYPE html>\n<html lang="en"{" data-start" * presenting}>\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="author" content="{_safe(document.author)}">\n'
        f"<title>{_safe(document.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{_safe(document.title)}</h1>\n<div class="said">{_safe(by)}</div>\n'
        '<button type="button" hidden>Present</button>\n</header>\n'
        f"<main>\n{steps}{_numbers(document.steps)}</main>\n{_footer(document)}"
        f"{_bar(document.title, by)}<script>{script}</script>\n</body>\n</html>\n"
    )


def _step(step: Step, place: int) -> str:
    parts = [f"<h2>{_unbroken(step.sentence)}</h2>"]
    if step.picture:
        parts.append(f"<figure>{step.picture}</figure>")  # drawn by us, with its texts escaped
    if step.cards:
        parts.append(f'<div class="cards">{"".join(map(_card, step.cards))}</div>')
    if step.table is not None and _is_shown(step):
        parts.append(_table(step.table))
    parts += [f"<p>{_safe(part)}</p>" for part in step.text.split("\n\n") if part.strip()]
    if step.table is not None and not _is_shown(step):
        parts.append(f'<p class="jump"><a href="#numbers-{place}">The numbers</a></p>')
    return f'<section class="step{"" if step.cards else " slide"}">\n{"".join(parts)}\n</section>\n'


def _is_shown(step: Step) -> bool:
    """Return whether a step's table stands in place of a picture; others stand at the end."""
    return not step.picture and not step.cards


def _card(card: Card) -> str:
    one = card.example
    picture = f'<img src="{card.picture}" alt="{_safe(f"Picture of: {one.question}")}">' if card.picture else ""
    return (
        f'<article class="card slide">{picture}'
        f'<div class="badge" data-sign="{SIGNS.get(one.outcome, "")}">{_safe(one.outcome)}, {_safe(one.domain)}</div>'
        f"<div>{_safe(one.question)}</div>"
        f'<p data-of="dense:">{_pieces(one.dense)}</p><p data-of="edited:">{_pieces(one.edited)}</p></article>'
    )


def _pieces(pieces: Sequence[Piece]) -> str:
    """Return a response with the words that differ marked, not the blanks behind them."""
    parts = []
    for piece in pieces:
        words, behind = piece.text.rstrip(), piece.text[len(piece.text.rstrip()) :]
        parts.append(f"<mark>{_safe(words)}</mark>{behind}" if piece.changed else _safe(piece.text))
    return "".join(parts)


def _numbers(steps: Sequence[Step]) -> str:
    """Return the tables that do not stand in their steps, each under its step's sentence."""
    tables = [
        f'<h3 id="numbers-{place}">{_safe(step.sentence)}</h3>{_table(step.table)}'
        for place, step in enumerate(steps)
        if step.table is not None and not _is_shown(step)
    ]
    return f'<section class="numbers">\n<h2>The numbers</h2>\n{"".join(tables)}\n</section>\n' if tables else ""


def _table(table: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in table.columns)
    rows = ("".join(f"<td>{_safe(cell)}</td>" for cell in row) for row in table.itertuples(index=False))
    body = "".join(f"<tr>{cells}</tr>" for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _footer(document: Document) -> str:
    pairs = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(text)}</dd>" for name, text in document.provenance)
    command = f"<h3>Make it again</h3><pre><code>{_safe(document.command)}</code></pre>" if document.command else ""
    return f"<footer>\n<h2>Where it comes from</h2>\n<dl>{pairs}</dl>\n{command}<p>Made by Strata {__version__}.</p>\n</footer>\n"


def _bar(title: str, by: str) -> str:
    said = " · ".join(filter(None, (title, by)))
    return (
        f'<nav hidden aria-label="Presentation"><span class="said">{_safe(said)}</span>'
        '<button type="button" aria-label="Back">‹</button><output></output><button type="button" aria-label="On">›</button>'
        '<button type="button">Close</button></nav>\n'
    )


def _safe(text: object) -> str:
    return html.escape(str(text))


def _unbroken(sentence: str) -> str:
    """Return a sentence in which no line ends between a number and its sign."""
    return re.sub(r"(?<=\d) (?=[%×])", "\u00a0", _safe(sentence))


@cache
def _read(name: str) -> str:
    return f"\n{Path(__file__).with_name(name).read_text('utf-8')}"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
