"""The subcommand that holds papers against saved work: claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.cli.base import command
from vlm_analysis.cli.output import Result
from vlm_analysis.words import counted

if TYPE_CHECKING:
    from vlm_analysis.workbench.workspace import Workspace


@command("Look", ".json")
def claims(
    shelf: Workspace,
    comparison: Annotated[
        str,
        typer.Argument(
            metavar="COMPARISON", help="The name or id of a saved comparison; without one no claim is tested."
        ),
    ] = "",
) -> Result:
    """List papers' claims, with their numbers and yours.

    It says too whether your prompts can tell. Best of a comparison of the preset: strata sweep PROMPTS --compare --preset domain-aware.
    """
    from vlm_analysis.cli.lookup import item_or_path
    from vlm_analysis.cli.output import rows_of
    from vlm_analysis.cli.results import item_data
    from vlm_analysis.selection.compared.comparison import open_comparison
    from vlm_analysis.workbench.claimed import claims_of
    from vlm_analysis.workbench.shelf import open_item
    from vlm_analysis.workbench.workspace import Item

    found = item_or_path(shelf, ("comparisons",), comparison, "a saved comparison, or a file") if comparison else None
    opened = open_item(found) if isinstance(found, Item) else None if found is None else open_comparison(found)
    table = claims_of(shelf, opened)
    lines = []
    for name, rows in table.groupby("claim", sort=False):
        first = rows.iloc[0]
        lines += [f"{name} ({first['paper']}): {first['says']}", f"  theirs: {first['theirs'] or 'none'}"]
        lines += [f"  theirs, against it: {first['against']}"] if first["against"] else []
        for _, row in rows.iterrows():
            number = "" if row["yours"] != row["yours"] else f" {row['yours']:+.3f} {row['unit']},"
            ends = "" if row["low"] != row["low"] else f" {row['low']:+.3f} to {row['high']:+.3f},"
            n = f" {counted(row['n_prompts'], 'prompt')}:" if row["n_prompts"] else ""
            where = f" on {row['domain']}:" if row["domain"] else ":"
            lines.append(f"  yours{where}{number}{ends}{n} {row['verdict']}. {row['would_tell']}".rstrip())
    item = found if isinstance(found, Item) else None
    return Result("Claims of papers", "\n".join(lines), {**item_data(item), "claims": rows_of(table)}, table)
