"""Vision tokens that skip layers, on the command line: the subcommand scan, and the options of mask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.arguments import Name, OnCluster, Prompts, Reading
from vlm_analysis.cli.base import command
from vlm_analysis.cli.output import Result
from vlm_analysis.errors import EditError, MaskError, short
from vlm_analysis.progress import Progress

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.evaluation.scan import VisionScan
    from vlm_analysis.recording.recording import Recording
    from vlm_analysis.workbench.bench import Bench
    from vlm_analysis.workbench.workspace import Item

LateEntry = Annotated[
    int | None,
    typer.Option("--late-entry", min=0, help="Vision tokens enter at this layer: hidden from text below it."),
]
EarlyExit = Annotated[
    int | None, typer.Option("--early-exit", min=0, help="Vision tokens leave at this layer: hidden from it on.")
]
Freeze = Annotated[
    str, typer.Option("--freeze", help='Layers that text sees vision tokens in, but that do not update them: "10-15".')
]
BySimilarity = Annotated[
    bool, typer.Option("--span-by-similarity", help="Vision tokens enter and leave where their cosines suggest it.")
]
FormOption = Annotated[
    str | None,
    typer.Option("--form", help="How vision tokens skip layers: masked, the reference, or sliced, which saves time."),
]
NoDeepStack = Annotated[
    bool,
    typer.Option("--no-deepstack", help="Add no DeepStack features after layers that vision tokens skip."),
]


@command("Record", ".npz")
def scan(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    form: Annotated[str, typer.Option("--form", help="masked or sliced, which takes less time.")] = "sliced",
    no_deepstack: NoDeepStack = False,
    exit_bound: Annotated[
        float | None,
        typer.Option(
            "--exit-bound", min=0, help="Choose the earliest exit of at most this KL, as VTW does with 0.003."
        ),
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="Of --exit-bound: the first layer to leave at.")] = 5,
    least: Annotated[
        int | None,
        typer.Option("--freeze-least", min=1, help="Choose so many layers of least KL to freeze, as ShortV does."),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option("--flops", min=0, max=1, help="Choose the edit of least KL within this share of the FLOPs."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The domain whose prompts count in a choice; all by default.")
    ] = None,
    conditions: Annotated[
        str,
        typer.Option("--conditions", help="Say whether Skip-It's conditions predict the damage, by this recording."),
    ] = "",
    name: Name = "",
    cluster: OnCluster = "",
) -> Result:
    """Measure in which layers vision tokens are needed.

    Every late entry, every early exit and every single frozen layer is scored on the prompts. A choice is saved as an edit, which
    evaluate, cost and export take; a scan that is saved is opened, and not measured again.
    """
    from vlm_analysis.cli.conditions import conditions_of
    from vlm_analysis.cli.lookup import find_prompts
    from vlm_analysis.selection.vision import exit_by_kl, freeze_by_kl, within_flops
    from vlm_analysis.workbench.scans import find_scan

    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    how: dict[str, Any] = {"form": form, "deepstack": not no_deepstack}
    with bench.on_cluster(cluster):
        model = bench.loaded(on_progress=on_progress).fingerprint
        item = None if name else find_scan(bench.workspace, model, prompt_set.prompts, **how)
        item = item or bench.measure_scan(prompt_set, name, **how, on_progress=on_progress)
    found: VisionScan = bench.open(item)
    chosen: list[tuple[Edit, str]] = []
    if exit_bound is not None:
        chosen.append((exit_by_kl(found, bound=exit_bound, first=first, domain=target), "first_kl_to_dense"))
    if least is not None:
        chosen.append((freeze_by_kl(found, least, domain=target), "first_kl_from_dense"))
    if flops is not None:
        chosen.append((within_flops(found, flops, domain=target), "kl_to_dense"))
    told = conditions_of(bench, found, prompt_set, conditions, target, on_progress) if conditions else {}
    kept = [(_kept(bench, found, edit), chosen_by(found, edit, score, target)) for edit, score in chosen]
    return of_scan(found, item, kept, told)


CHOSEN_BY = {
    "first_kl_to_dense": "KL at the last prompt token, dense ‖ edited",
    "first_kl_from_dense": "KL at the last prompt token, edited ‖ dense",
    "kl_to_dense": "KL over the answer, dense ‖ edited",
}


def chosen_by(found: VisionScan, edit: Edit, score: str, domain: str | None) -> str:
    """Return by which number of the scan an edit was chosen, and what it is: "KL at …: 0.002 nats"."""
    from vlm_analysis.edits.skipping import ABSENT, FROZEN as FREEZES, vision_row
    from vlm_analysis.evaluation.scan import FROZEN
    from vlm_analysis.words import counted

    table, row = found.table(domain), vision_row(edit)
    if FREEZES in row and ABSENT not in row and score == "first_kl_from_dense":
        values = [table[score][FROZEN, layer] for layer, what in enumerate(row) if what == FREEZES]
        each = f" in each of {counted(len(values), 'layer')} alone" if len(values) > 1 else ""
        return f"{CHOSEN_BY[score]}: {'at most ' if each else ''}{max(values):.3g} nats{each}"
    way = next(one for one in table.index if found.edit(*one) == edit)
    return f"{CHOSEN_BY[score]}: {table[score][way]:.3g} nats"


def _kept(bench: Bench, found: VisionScan, edit: Edit) -> Item:
    from vlm_analysis.cli.maskfiles import keep_once
    from vlm_analysis.words import sentence

    edit = replace(edit, name=sentence(edit.words()), model=found.model, provenance={"prompts": found.prompts})
    item: Item = keep_once(bench.workspace, edit)
    return item


def skipping_edit(
    recording: Recording,
    late: int | None,
    leave: int | None,
    freeze: str,
    by_similarity: bool,
    form: str | None,
    no_deepstack: bool,
) -> Edit | None:
    """Return the edit of the options in which vision tokens skip layers; None without one.

    Raises:
        EditError: they contradict each other, or the recording's model refuses the edit.
        MaskError: --freeze names no layers.
    """
    from vlm_analysis.edits.kinds.vision import MASKED
    from vlm_analysis.edits.shorthand import layers_in
    from vlm_analysis.edits.skipping import early_exit, freeze as frozen_edit, late_entry
    from vlm_analysis.selection.vision import span_by_similarity
    from vlm_analysis.words import sentence

    n_layers, how = recording.n_layers, {"form": form or MASKED, "deepstack": not no_deepstack}
    layers = layers_in(freeze) if freeze else None
    if freeze and layers is None:
        raise MaskError(
            f"--freeze names no layers: expected layers like 10-15, got {short(repr(freeze))}. Write their numbers."
        )
    parts = [] if late is None else [late_entry(n_layers, late, **how)]  # type: ignore[arg-type]
    parts += [] if leave is None else [early_exit(n_layers, leave, **how)]  # type: ignore[arg-type]
    parts += [] if layers is None else [frozen_edit(n_layers, layers, **how)]  # type: ignore[arg-type]
    if by_similarity:
        if no_deepstack or late is not None or leave is not None:
            raise EditError(
                "--span-by-similarity sets entry and exit itself: expected none beside it, got one. Leave one out."
            )
        parts.append(span_by_similarity(recording, form=how["form"]))  # type: ignore[arg-type]
    if not parts:
        if form is not None or no_deepstack:
            raise EditError(
                "--form and --no-deepstack are of vision tokens that skip layers: expected --late-entry, --early-exit or --freeze, got "
                "none. Add one."
            )
        return None
    edit = sum(parts[1:], parts[0])
    _check_span(n_layers, late or 0, leave or n_layers + 1, edit)
    if reason := edit.refuses(recording.model):
        raise EditError(reason)
    return replace(
        edit, name=sentence(edit.words()), provenance={"made": "by similarity" if by_similarity else "by hand"}
    )


def _check_span(n_layers: int, enter: int, leave: int, edit: Edit) -> None:
    """Check that a late entry and an early exit leave layers that see vision tokens, and that something is skipped.

    Raises:
        EditError: the entry is at the exit or behind it, or no layer is skipped.
    """
    if enter >= leave:
        raise EditError(
            f"Vision tokens cannot enter there and leave here: expected --late-entry below --early-exit, got {enter} and {leave}, which "
            "leaves no layer that sees them. Enter earlier or leave later; --early-exit 0 hides them in every layer."
        )
    if edit.is_dense:
        raise EditError(
            f"No layer is skipped: expected --late-entry above 0, --early-exit below {n_layers}, or layers to --freeze, got an edit that "
            "changes nothing. Name other layers."
        )


def of_scan(
    found: VisionScan,
    item: Item | None,
    chosen: list[tuple[Item, str]] | None = None,
    told: dict[str, Any] | None = None,
) -> Result:
    """Return a scan: KL and exact match of each way by layer; the table has every mean, by domain too, and the share of FLOPs.

    `chosen` are edits with the number that each was chosen by, in words.
    """
    import pandas as pd

    from vlm_analysis.cli.output import rows_of
    from vlm_analysis.cli.results import aside, grid, item_data, kept_line
    from vlm_analysis.evaluation.scan import DENSE
    from vlm_analysis.evaluation.scanfile import save_scan
    from vlm_analysis.words import counted

    domains = list(found.by_prompt["domain"].unique())
    parts = {"all": found.table(), **{name: found.table(name) for name in domains if len(domains) > 1}}
    table = pd.concat([part.reset_index().assign(domain=name) for name, part in parts.items()], ignore_index=True)
    shares = (
        {one: found.flops_share(found.edit(*one)) for one in parts["all"].index} if found.model.layer_parameters else {}
    )
    table["flops_share"] = [shares.get(one, float("nan")) for one in zip(table["way"], table["layer"], strict=True)]
    shown = pd.DataFrame({"layer": range(found.model.n_layers + 1)})
    for way in [way for way in dict.fromkeys(table["way"]) if way != DENSE]:
        for column, words in (("kl_to_dense", "answer KL"), ("exact_match", "match")):
            shown[f"{way}, {words}"] = shown["layer"].map(parts["all"].loc[way][column])
    dense = parts["all"].loc[DENSE].iloc[0]["exact_match"]
    n_prompts = found.by_prompt["id"].nunique()
    about = f"{found.model.name} on {counted(n_prompts, 'prompt')}, {found.form}; the dense model matches {dense:.3f}. "
    about += "answer KL: KL(dense ‖ edited) over the answer, nats"
    lines = [f"\nChosen: {one.details.get('what')} ({one.id}), by {by}" for one, by in chosen or ()]
    lines += [f"\n{sentence}" for sentence in (told or {}).get("sentences", ())]
    data = {**item_data(item), "model": found.model.fingerprint, "prompts": found.prompts, "form": found.form}
    data |= {"deepstack": found.deepstack, "n_vision": found.n_vision, "n_text": found.n_text, "rows": rows_of(table)}
    data |= {
        "set_aside": found.set_aside,
        "chosen": [item_data(one) | {"what": one.details.get("what"), "by": by} for one, by in chosen or ()],
    }
    data |= {"conditions": told} if told else {}
    forms = {".npz": lambda path: save_scan(found, path)}
    text = f"{about}\n{grid(shown)}{aside(found.set_aside, n_prompts)}{''.join(lines)}{kept_line(item)}"
    return Result("Scan of vision tokens", text, data, table, forms=forms)
