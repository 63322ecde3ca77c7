"""What looks at saved work, files and the machine: show and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.base import command
from vlm_analysis.cli.found import Found
from vlm_analysis.errors import StrataError, WorkspaceError

if TYPE_CHECKING:
    from vlm_analysis.workbench.workspace import Item, Workspace


@command("Look", ".npz", ".json", ".yaml")
def show(
    shelf: Workspace,
    out: Path | None,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="The name or id of anything saved, or a file; all that is saved by default."
        ),
    ] = "",
    kind: Annotated[str, typer.Option(help="Only this kind: prompts, recordings, masks, evaluations, …")] = "",
) -> Found:
    """Show anything saved, or a file of it."""
    from vlm_analysis.cli import told
    from vlm_analysis.cli.named import every_item, item_or_path
    from vlm_analysis.workbench.workspace import KINDS

    if kind and kind not in KINDS:
        raise WorkspaceError(
            f"There is no such kind: expected one of {', '.join(KINDS)}, got '{kind[:100]}'. Choose one."
        )
    if what:
        kinds = (kind,) if kind else tuple(KINDS)
        named = item_or_path(shelf, kinds, what, "a file, or the name or id of something saved")
        found = _of_file(named) if isinstance(named, Path) else _of_item(shelf, named)
    else:
        found = told.of_items([item for item in every_item(shelf) if kind in ("", item.kind)], str(shelf.root))
    _check_form(found, out)
    return found


def _check_form(found: Found, out: Path | None) -> None:
    """Refuse the ending of a form that what was found does not have.

    Raises:
        WorkspaceError: it has none of that ending.
    """
    from vlm_analysis.cli.found import TABLES

    known = (*TABLES, ".json", *found.forms)
    if out is not None and out.suffix.lower() not in known:
        raise WorkspaceError(
            f"{found.title} cannot be written so: expected a name ending in {', '.join(dict.fromkeys(known))}, got '{out.suffix}'. "
            "Choose one of these endings."
        )


def _of_item(shelf: Workspace, item: Item) -> Found:
    from vlm_analysis.cli import told
    from vlm_analysis.workbench.shelf import find_dense, open_item, open_whole
    from vlm_analysis.workbench.stories import open_saved_story

    if item.kind == "stories":
        return told.of_story(open_saved_story(shelf, item), item)
    value = open_item(item)
    if item.kind == "evaluations":
        found = find_dense(shelf, item.model, item.prompts)
        return told.of_evaluation(value, None if found is None else open_whole(found), item)
    if item.kind == "sweeps":
        return told.of_evaluations(value, [told.doing(one.edit) for one in value], item)
    if item.kind == "costs":
        return told.of_costs([value], [item])
    tell: dict[str, Any] = {
        "prompts": told.of_prompts,
        "recordings": told.of_recording,
        "masks": told.of_mask,
        "comparisons": told.of_comparison,
    }
    shown: Found = tell[item.kind](value, item)
    return shown


def _of_file(path: Path) -> Found:
    """Return what a file holds, of the first kind that opens it; a folder or a table holds prompts.

    Raises:
        StrataError: it is of no kind.
    """
    from vlm_analysis.cli import told
    from vlm_analysis.edits.files import open_edit
    from vlm_analysis.evaluation.cost import open_cost
    from vlm_analysis.evaluation.evaluation import open_evaluation
    from vlm_analysis.prompts.prompts import open_prompts
    from vlm_analysis.recording.recording import open_recording
    from vlm_analysis.selection.compared.comparison import open_comparison

    kinds: dict[str, tuple[tuple[Any, Any], ...]] = {
        ".npz": ((open_recording, told.of_recording), (open_comparison, told.of_comparison)),
        ".json": (
            (open_edit, told.of_mask),
            (open_evaluation, lambda value, item: told.of_evaluation(value, None, item)),
            (open_cost, lambda value, item: told.of_costs([value], [item])),
        ),
    }
    reasons = []
    for open_it, tell in kinds.get(path.suffix.lower(), ((open_prompts, told.of_prompts),)):
        try:
            value = open_it(path)
        except StrataError as error:
            reasons.append(str(error))
            continue
        shown: Found = tell(value, None)
        return shown
    raise WorkspaceError(f"'{path}' cannot be shown. {' '.join(reasons)}")


@command("Look", ".json")
def doctor(shelf: Workspace) -> Found:
    """Check versions, devices, memory and the workspace.

    Everything saved is opened once; what is damaged is named.
    """
    from vlm_analysis.cli.told import of_checkup
    from vlm_analysis.workbench.checkup import check_up

    return of_checkup(check_up(shelf))
