"""The subcommand width: scores of MLP neurons and attention groups, and edits that keep some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.arguments import Name, Prompts, Reading
from vlm_analysis.cli.base import command
from vlm_analysis.cli.output import Result
from vlm_analysis.errors import EditError
from vlm_analysis.progress import Progress

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.selection.width.scores import WidthScores
    from vlm_analysis.workbench.bench import Bench
    from vlm_analysis.workbench.workspace import Item


@command("Choose", ".npz")
def width(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    shares: Annotated[
        list[float] | None,
        typer.Option(
            "--share", min=0, max=1, help="Make an edit that loses this share of the decoder layers' parameters."
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="uniform: as many in every layer, which stock classes load; or global.")
    ] = "uniform",
    window: Annotated[int, typer.Option("--window", min=1, help="Tokens of a window around a pivot.")] = 8,
    sides: Annotated[
        str, typer.Option("--sides", help="Whether a window is that long on each side, or in all.")
    ] = "each",
    fast: Annotated[
        bool, typer.Option("--fast", help="Two backward passes a prompt, not one for each answer token; other numbers.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Score windows at random places too.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="taylor, or magnitude of the weights.")] = None,
    pivots: Annotated[str | None, typer.Option("--pivots", help="Which windows count: steps, random or none.")] = None,
    g_base: Annotated[float | None, typer.Option("--g-base", help="How much pivots count where nothing goes.")] = None,
    rho: Annotated[float | None, typer.Option("--rho", help="How fast that falls with the share that goes.")] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="How much a layer's output norm protects it.")] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="How much its cross-modal distance protects it.")] = None,
    least: Annotated[
        float | None, typer.Option("--least", help="The share of its units that each layer keeps.")
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option("--units", help="What may go: neurons, kv_groups; may be repeated, both by default."),
    ] = None,
    form: Annotated[str, typer.Option("--form", help="small cuts the weights, zeroed keeps their shapes.")] = "small",
    name: Name = "",
) -> Result:
    """Score neurons and attention groups, and choose which go.

    One backward pass for each answer token. Scores that are saved are opened, and not measured again. Each --share saves an edit, which
    evaluate, cost and export take; --name is its name, or that of the scores where there is none.
    """
    from vlm_analysis.cli.lookup import find_prompts
    from vlm_analysis.evaluation.pivots import check_windows
    from vlm_analysis.selection.width.choosing import check_choice, make_narrow
    from vlm_analysis.workbench.widths import find_width

    weighing: dict[str, Any] = {"by": by, "pivots": pivots, "g_base": g_base, "rho": rho, "alpha": alpha, "beta": beta}
    weighing |= {"least": least, "units": tuple(units) if units else None}
    given = {option: value for option, value in weighing.items() if value is not None}
    if given and not shares:
        raise EditError(
            f"--{next(iter(given)).replace('_', '-')} is of choosing: expected --share beside it, got none. Add one."
        )
    check_windows(window, sides, seed)
    for share in shares or ():  # what needs no scores is refused before they are measured
        check_choice(share, mode, form=form, **given)
    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    model = bench.loaded(on_progress=on_progress).fingerprint
    how: dict[str, Any] = {"window": window, "sides": sides, "fast": fast, "seed": seed}
    scores_name = "" if shares else name
    item = None if scores_name else find_width(bench.workspace, model, prompt_set.prompts, **how)
    item = item or bench.measure_width(prompt_set, scores_name, **how, on_progress=on_progress)
    found: WidthScores = bench.open(item)
    made = [make_narrow(found, share, mode, form=form, **given) for share in shares or ()]
    return of_width(found, item, [_kept(bench, edit, name, len(made)) for edit in made])


def _kept(bench: Bench, edit: Edit, name: str, n_edits: int) -> Item:
    """Keep an edit under the name; of several, each name says which it is too."""
    from dataclasses import replace

    from vlm_analysis.cli.maskfiles import keep_once

    own = (name if n_edits == 1 else f"{name}, {edit.name}") if name else edit.name
    item: Item = keep_once(bench.workspace, replace(edit, name=own))
    return item


def of_width(found: WidthScores, item: Item | None, chosen: list[Item] | None = None) -> Result:
    """Return scores as a row for each layer: what all its neurons and groups come to, and what protects it."""
    import pandas as pd

    from vlm_analysis.cli.output import rows_of
    from vlm_analysis.cli.results import aside, grid, item_data, kept_line
    from vlm_analysis.selection.width.file import save_width_scores
    from vlm_analysis.selection.width.scores import PIVOT, TAYLOR, UNITS

    columns: dict[str, Any] = {"layer": range(found.model.n_layers)}
    for unit in UNITS:
        columns[unit] = [part.shape[1] for part in getattr(found, unit)]
        for value in (TAYLOR, PIVOT):
            columns[f"{unit}, {value}"] = [float(one.sum()) for one in found.values(value, unit)]
    table = pd.DataFrame({**columns, "sens": found.sens, "cmds": found.cmds})
    about = f"{found.model.name}, {found.how}: sums over the units of a layer, in nats. {found.finding()}"
    whole = [
        f"\nNot cut: {unit} of layer {layer}: {why}" for unit in UNITS for layer, why in found.reasons(unit).items()
    ]
    lines = [f"\nChosen: {one.name}: {one.details.get('what')} ({one.id})" for one in chosen or ()]
    data = {**item_data(item), "model": found.model.fingerprint, **found.about(), "rows": rows_of(table)}
    data |= {"set_aside": found.set_aside}
    data |= {"chosen": [item_data(one) | {"what": one.details.get("what")} for one in chosen or ()]}
    text = f"{about}\n{grid(table)}{''.join(whole[:4])}{aside(found.set_aside, found.n_answers)}{''.join(lines)}{kept_line(item)}"
    return Result("Width", text, data, table, forms={".npz": lambda path: save_width_scores(found, path)})
