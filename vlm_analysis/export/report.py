"""A report as one HTML file that opens offline in any browser: text, tables, pictures and interactive figures.

The file loads nothing: it contains plotly.js once where it has a figure, and a content security policy blocks all requests.
All text may come from users (domains, questions, file names) and is escaped, in the page and in the
figures' JSON. CSS alone adapts colours to the reader's light or dark setting; printing is always light.
This module imports neither torch nor streamlit.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import plotly.graph_objects as go

# `data:` and `blob:` because plotly.js stores small pictures this way.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f27; --faint: #5b6472; --line: #d5d9e0; --band: #f4f6f9; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #0f131a; --ink: #e8ebf0; --faint: #9aa4b2; --line: #333b47; --band: #181e27; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1.2rem; }
h2 { font-size: 1.2rem; margin: 0 0 .4rem; }
section { margin: 0 0 2.2rem; }
p { margin: 0 0 .8rem; max-width: 46rem; white-space: pre-line; }
footer { border-top: 1px solid var(--line); padding-top: .8rem; color: var(--faint); font-size: .85rem; }
.scroll { overflow-x: auto; margin-top: .8rem; }
.figure { min-width: 40rem; }
.scroll > svg { display: block; width: 100%; min-width: 34rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; min-width: 4rem; }
tr { border-bottom: 1px solid var(--line); }
td { max-width: 28rem; overflow-wrap: break-word; }
thead th { background: var(--band); }
.figure :is([class$="tick"], .textpoint) text,
.figure text:is([class$="title"], .annotation-text, .legendtext, .bartext) {
  fill: var(--ink) !important;
}
@media print {
  main { max-width: none; padding: 0; }
  section, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .scroll { overflow: visible; }
  thead th { print-color-adjust: exact; }
}
"""
_DRAW = """
const plots = [...document.querySelectorAll(".figure")];
for (const plot of plots) {
  const figure = JSON.parse(plot.nextElementSibling.textContent);
  Plotly.newPlot(plot, figure.data, figure.layout, {responsive: true, displayModeBar: false, displaylogo: false});
}
const fit = width => plots.forEach(plot => Plotly.relayout(plot, width ? {width} : {width: null, autosize: true}));
addEventListener("beforeprint", () => fit(680));
addEventListener("afterprint", () => fit(null));
"""


@dataclass(frozen=True)
class Section:
    """One part of a report: a heading, paragraphs (separated by blank lines), and an optional figure, table, and picture (SVG)."""

    heading: str
    text: str
    figure: go.Figure | None = None
    table: pd.DataFrame | None = None
    picture: str = ""


def report_html(title: str, sections: Sequence[Section], *, footer: str) -> str:
    """Return the report as one HTML page that loads nothing; without figures it has no scripts."""
    from plotly.offline import get_plotlyjs

    scripts = ""
    if any(section.figure is not None for section in sections):
        scripts = f"<script>{get_plotlyjs()}</script>\n<script>{_DRAW}</script>\n"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{html.escape(title)}</h1>\n"
        + "".join(_section_html(section) for section in sections)
        + f"<footer>{html.escape(footer)}</footer>\n</main>\n{scripts}</body>\n</html>\n"
    )


def _section_html(section: Section) -> str:
    paragraphs = [part.strip() for part in section.text.split("\n\n") if part.strip()]
    parts = [f"<h2>{html.escape(section.heading)}</h2>", *(f"<p>{html.escape(part)}</p>" for part in paragraphs)]
    if section.picture:
        parts.append(f'<div class="scroll">{section.picture}</div>')  # drawn by us, with its texts escaped
    if section.figure is not None:
        parts.append(_figure_html(section.figure))
    if section.table is not None:
        parts.append(_table_html(section.table))
    return "<section>\n" + "\n".join(parts) + "\n</section>\n"


def _figure_html(figure: go.Figure) -> str:
    """Return the container of the figure and its JSON, escaped such that no text in it can end the script element."""
    own = type(figure)(figure)
    own.update_layout(template="none", font={"family": "system-ui, sans-serif", "size": 13})
    escaped = str(own.to_json(engine="json"))
    for char in "<>&":  # Plotly escapes these too, but does not document it
        escaped = escaped.replace(char, f"\\u{ord(char):04x}")
    height = int(own.layout.height or 450)
    container = f'<div class="figure" style="height:{height}px"></div>'
    return f'<div class="scroll">{container}<script type="application/json">{escaped}</script></div>'


def _table_html(table: pd.DataFrame) -> str:
    """Return the whole table, with cells escaped and not truncated; a plain counting index is left out."""
    counts_only = isinstance(table.index, pd.RangeIndex) and table.index.name is None
    with pd.option_context("display.max_colwidth", None):
        body = table.to_html(
            index=not counts_only, border=0, na_rep="–", float_format=lambda value: f"{value:.4g}", justify="left"
        )
    return f'<div class="scroll">{body}</div>'
