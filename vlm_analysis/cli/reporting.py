"""The subcommand that writes the document of a comparison: report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.cli.base import command, say
from vlm_analysis.cli.output import check_out

if TYPE_CHECKING:
    from vlm_analysis.workbench.workspace import Workspace


@command("Look")
def report(
    shelf: Workspace,
    comparison: Annotated[
        str, typer.Argument(metavar="COMPARISON", help="The name or id of a saved comparison, as the demo's.")
    ],
    path: Annotated[Path, typer.Option("--out", help="The report, one HTML file that opens offline.")] = Path(
        "strata-report.html"
    ),
    budget: Annotated[
        int | None, typer.Option(min=1, help="Layers to drop; the recommended number by default.")
    ] = None,
    title: Annotated[str, typer.Option(help="The question that it answers by default.")] = "",
    author: Annotated[str, typer.Option(help="Who wrote it; nobody by default.")] = "",
    date: Annotated[str, typer.Option(help="Today by default.")] = "",
    price_in: Annotated[float | None, typer.Option(min=0, help="What a million tokens of prompts cost you.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="What a million tokens of responses cost you.")] = None,
    currency: Annotated[str, typer.Option(help="Of the prices, as EUR.")] = "",
) -> None:
    """Write a comparison's answer as a report.

    The file needs no network. Its button "Present" steps through it with the arrow keys. Money is shown only at a price that you give.
    """
    check_out(path, (), tables=(".html",))
    from vlm_analysis.cli.lookup import find_comparison
    from vlm_analysis.export.document.document import Cover
    from vlm_analysis.export.document.page import write_document
    from vlm_analysis.export.document.price import Price
    from vlm_analysis.workbench.documents import document_for

    price = None if price_in is None and price_out is None else Price(price_in or 0, price_out or 0, currency)
    item = find_comparison(shelf, comparison)
    document = document_for(shelf, item, budget, cover=Cover(title, author, date), price=price)
    write_document(document, path)
    say(f"{document.steps[0].sentence}\n\nWritten to {path}. Open it in a browser; “Present” steps through it.")
