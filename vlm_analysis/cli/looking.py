"""The subcommands that show saved work, files and the machine: show, projects and doctor."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.arguments import MASK_FILES, Reading
from vlm_analysis.cli.base import command
from vlm_analysis.cli.output import Result
from vlm_analysis.errors import WorkspaceError

if TYPE_CHECKING:
    from vlm_analysis.prompts.hubdata import HubDataset
    from vlm_analysis.workbench.checkup import Checkup
    from vlm_analysis.workbench.workspace import Item, Workspace


@command("Look", ".npz", *MASK_FILES)
def show(
    shelf: Workspace,
    out: Path | None,
    reading: Reading,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="The name or id of a saved item, a file, or hub:owner/name; lists all saved items by default.",
        ),
    ] = "",
    kind: Annotated[str, typer.Option(help="Only this kind: prompts, recordings, masks, evaluations, …")] = "",
) -> Result:
    """Show a saved item, a file, or a dataset of the Hub."""
    from vlm_analysis.cli import results
    from vlm_analysis.cli.lookup import check_not_read, every_item, item_or_path
    from vlm_analysis.cli.shownfiles import of_file
    from vlm_analysis.prompts.hubdata import PREFIX, dataset_at
    from vlm_analysis.workbench.workspace import KINDS

    if kind and kind not in KINDS:
        raise WorkspaceError(
            f"There is no such kind: expected one of {', '.join(KINDS)}, got '{kind[:100]}'. Choose one."
        )
    if what.startswith(PREFIX):
        check_not_read(what, reading)
        result = _of_dataset(dataset_at(what)[0])
    elif what:
        kinds = (kind,) if kind else tuple(KINDS)
        item_or_file = item_or_path(shelf, kinds, what, "a file, or the name or id of a saved item")
        if isinstance(item_or_file, Path):
            result = of_file(item_or_file, reading, out)
        else:
            check_not_read(what, reading)
            result = _of_item(shelf, item_or_file)
    else:
        result = results.of_items([item for item in every_item(shelf) if kind in ("", item.kind)], str(shelf.root))
    _check_form(result, out)
    return result


def _check_form(result: Result, out: Path | None) -> None:
    """Check that the result can be written with the ending of `out`.

    Raises:
        WorkspaceError: it has no form of that ending.
    """
    from vlm_analysis.cli.output import TABLES, ending_of

    known = (*TABLES, ".json", *result.forms)
    if out is not None and ending_of(out, known) not in known:
        raise WorkspaceError(
            f"{result.title} cannot be written: expected a name ending in {', '.join(dict.fromkeys(known))}, got '{out.suffix}'. "
            "Choose one of these endings."
        )


def _of_item(shelf: Workspace, item: Item) -> Result:
    from vlm_analysis.cli import results
    from vlm_analysis.cli.conditions import of_probe
    from vlm_analysis.cli.costed import of_costs
    from vlm_analysis.cli.skipping import of_scan
    from vlm_analysis.workbench.shelf import find_dense, open_whole
    from vlm_analysis.workbench.stories import open_saved

    value = open_saved(shelf, item)
    if item.kind == "evaluations":
        dense_item = find_dense(shelf, item.model, item.prompts)
        return results.of_evaluation(value, None if dense_item is None else open_whole(dense_item), item)
    if item.kind == "sweeps":
        return results.of_evaluations(value, [results.edit_words(one.edit) for one in value], item)
    if item.kind == "scans":
        return of_scan(value, item)
    if item.kind == "widths":
        from vlm_analysis.cli.width import of_width

        return of_width(value, item)
    if item.kind == "probes":
        return of_probe(value, item)
    if item.kind == "costs":
        return of_costs([value], [item])
    if item.kind == "ledgers":
        from vlm_analysis.cli.recovered import of_ledger

        return of_ledger(value, item)
    if item.kind == "contests":
        from vlm_analysis.cli.contest import of_contest

        return of_contest(value, item)
    functions: dict[str, Any] = {
        "prompts": results.of_prompts,
        "recordings": results.of_recording,
        "masks": results.of_mask,
        "comparisons": results.of_comparison,
        "stories": results.of_story,
    }
    result: Result = functions[item.kind](value, item)
    return result


def _of_dataset(dataset: HubDataset) -> Result:
    """Return what a dataset of the Hub holds: its licence, and a row for each split."""
    import pandas as pd

    from vlm_analysis.cli.results import grid
    from vlm_analysis.prompts.hubdata import PREFIX
    from vlm_analysis.words import counted

    rows = [(one.path, len(one.files), one.n_bytes / 10**6) for one in dataset.splits]
    table = pd.DataFrame(rows, columns=["split", "files", "MB"])
    n_bytes = sum(dataset.sizes.values())
    text = (
        f"{dataset.id} at {dataset.revision[:8]}: licence {dataset.licence or 'not named'}, {counted(len(dataset.sizes), 'file')} of "
        f"{n_bytes / 10**6:,.0f} MB together.\n{grid(table, 1)}\n\nFetch a split and record it: "
        f"strata record {shlex.quote(f'{PREFIX}{dataset.id}/{dataset.splits[0].path}')}"
    )
    return Result(dataset.id, text, asdict(dataset), table)


@command("Look", ".json")
def projects(shelf: Workspace) -> Result:
    """List the projects, with the number of saved items in each."""
    import pandas as pd

    from vlm_analysis.cli.results import rows_of
    from vlm_analysis.words import counted
    from vlm_analysis.workbench.projects import DEFAULT
    from vlm_analysis.workbench.workspace import KINDS, Workspace

    names = ["", *shelf.projects()]
    shelves = [Workspace(shelf.base, name) for name in names]
    counts = [{kind: len(each.items(kind)) for kind in KINDS} for each in shelves]
    rows = [{"project": name or DEFAULT, **count} for name, count in zip(names, counts, strict=True)]
    lines = [
        f"{name or DEFAULT}: {counted(sum(count.values()), 'item')}" for name, count in zip(names, counts, strict=True)
    ]
    table = pd.DataFrame(rows)
    return Result("Projects", "\n".join(lines), {"root": str(shelf.base), "projects": rows_of(table)}, table)


@command("Look", ".json")
def doctor(shelf: Workspace) -> Result:
    """Check versions, devices, memory and the workspace.

    Every saved item is opened once; damaged ones are listed.
    """
    from vlm_analysis.workbench.checkup import check_up

    return _of_checkup(check_up(shelf))


def _of_checkup(checkup: Checkup) -> Result:
    """Return versions, devices, memory, the number of saved items, and the damaged ones."""
    import pandas as pd

    rows = [("version", name, version) for name, version in checkup.versions.items()]
    rows += [("device", name, f"{n_bytes / 2**30:.1f} GiB free") for name, n_bytes in checkup.devices.items()]
    rows += [("disk", checkup.root, f"{checkup.disk_bytes / 2**30:.1f} GiB free")]
    rows += [("saved", kind, str(count)) for kind, count in checkup.counts.items()]
    rows += [("damaged", str(number), message) for number, message in enumerate(checkup.damaged, 1)]
    lines = [f"{what:<8} {name:<14} {value}" for what, name, value in rows]
    lines += [
        "",
        f"{len(checkup.damaged)} saved things are damaged." if checkup.damaged else "Nothing saved is damaged.",
    ]
    table = pd.DataFrame(rows, columns=["what", "name", "value"])
    return Result("Checkup", "\n".join(lines), asdict(checkup), table)
