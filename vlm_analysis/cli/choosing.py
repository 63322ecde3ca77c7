"""The subcommands that choose layers from a recording, without the model: rank and mask."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.arguments import MASK_FILES, Config, Keep, Name, Unprotect
from vlm_analysis.cli.base import command, warn
from vlm_analysis.cli.maskfiles import keep_once
from vlm_analysis.cli.output import Result
from vlm_analysis.cli.parts import DropAttention, DropMlp, parts_edit
from vlm_analysis.cli.skipping import BySimilarity, EarlyExit, FormOption, Freeze, LateEntry, NoDeepStack, skipping_edit
from vlm_analysis.cli.towers import DropTower, OfTower, rank_tower, tower_edit
from vlm_analysis.errors import MaskError, short

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.recording.recording import Recording
    from vlm_analysis.selection.criteria.damage import Damage
    from vlm_analysis.workbench.workspace import Workspace

Recorded = Annotated[str, typer.Argument(metavar="RECORDING", help="A file, or the name or id of a saved recording.")]
Target = Annotated[str | None, typer.Option(help="The domain whose answers should survive.")]
Other = Annotated[str | None, typer.Option(help="Of contrast: the second domain; all but the target by default.")]
Domain = Annotated[
    str | None, typer.Option(help="Prompts that count, for criteria and strategies that compare no domains.")
]
Weight = Annotated[float, typer.Option(min=0, max=1, help="Of the mixed criteria.")]
Group = Annotated[str, typer.Option("--token-group", help="vision, text, answer, last or all.")]
Share = Annotated[float, typer.Option(help="Of important-tokens: the share of tokens.")]
Delta = Annotated[float, typer.Option(help="Of skip-proximal: a token counts as changed from 1 − cosine.")]
Seed = Annotated[int, typer.Option(min=0, max=10_000, help="Of random draws, and of every spread.")]

Criterion = Annotated[
    str | None, typer.Option(help="What scores the layers, block-influence by default; `rank` shows them.")
]
Strategy = Annotated[str, typer.Option(help="How scores become a mask. An unknown one lists all.")]
Budget = Annotated[
    float | None, typer.Option(min=0, help="How much to drop: 3 layers (the default), or a ratio or share like 0.2.")
]
Unit = Annotated[str, typer.Option(help="Unit of the budget: layers, ratio or parameters.")]
ByHand = Annotated[
    str, typer.Option(help='The layers to drop, in place of a criterion: "3,5-7", or a file of Strata or another tool.')
]
Preset = Annotated[
    str,
    typer.Option(
        help="domain-aware: every choice of arXiv:2603.20275 at once; --budget is then a share, 0.25 by default."
    ),
]
Ranking = Annotated[
    str | None, typer.Option(help="Of the preset: target, others, mixed (the default), cka, interlace or random-draw.")
]
KeepDeepStack = Annotated[
    bool, typer.Option("--keep-deepstack", help="Of the preset: layers after which vision features are added stay too.")
]
Gap = Annotated[int, typer.Option(min=0, help="Of minimum-gap: layers kept between any two dropped ones.")]
SpanTokens = Annotated[
    str | None, typer.Option(help="Of strategies that read spans: their tokens; its own by default.")
]


@command("Choose", ".json")
def rank(
    recording: Recorded,
    shelf: Workspace,
    criterion: Annotated[
        list[str] | None, typer.Option(help="A criterion, or all; may be repeated. An unknown one lists all.")
    ] = None,
    target: Target = None,
    other: Other = None,
    domain: Domain = None,
    weight: Weight = 0.7,
    token_group: Group = "all",
    share: Share = 0.5,
    delta: Delta = 0.05,
    seed: Seed = 0,
    tower: OfTower = False,
) -> Result:
    """Score each layer under criteria. Damage that was measured on the recording's prompts is used."""
    from vlm_analysis.cli.lookup import find_recording
    from vlm_analysis.cli.results import of_scores
    from vlm_analysis.selection.criteria.criteria import CRITERIA, DEFAULTS
    from vlm_analysis.selection.criteria.scoring import score_layers, usable_criteria

    opened = find_recording(shelf, recording)
    options: dict[str, Any] = {"target": target, "other": other, "weight": weight, "token_group": token_group}
    options |= {"share": share, "delta": delta, "seed": seed}
    if tower:
        usual = signature(rank).parameters
        asked = {"criterion": criterion, **options}
        return rank_tower(opened, domain, [name for name, value in asked.items() if value != usual[name].default])
    options |= {"domain": domain, "damage": _damage(shelf, opened)}
    if criterion and criterion != ["all"]:
        return of_scores(opened, [score_layers(opened, name, **options) for name in dict.fromkeys(criterion)], {})
    names = CRITERIA if criterion else DEFAULTS
    reasons = {name: reason for name, reason in usable_criteria(opened, **options).items() if name in names}
    usable = [name for name, reason in reasons.items() if not reason]
    if not usable:
        raise MaskError(f"No criterion can be used with these options: {next(iter(reasons.values()))}")
    refused = {name: reason for name, reason in reasons.items() if reason}
    return of_scores(opened, [score_layers(opened, name, **options) for name in usable], refused)


@command("Choose", *MASK_FILES, ".puzzletron.json")
def mask(
    recording: Recorded,
    shelf: Workspace,
    criterion: Criterion = None,
    strategy: Strategy = "first-k",
    preset: Preset = "",
    ranking: Ranking = None,
    keep_deepstack: KeepDeepStack = False,
    budget: Budget = None,
    unit: Unit = "layers",
    drop: ByHand = "",
    drop_attention: DropAttention = "",
    drop_mlp: DropMlp = "",
    drop_tower: DropTower = "",
    target: Target = None,
    other: Other = None,
    domain: Domain = None,
    weight: Weight = 0.7,
    token_group: Group = "all",
    share: Share = 0.5,
    delta: Delta = 0.05,
    seed: Seed = 0,
    gap: Gap = 1,
    span_tokens: SpanTokens = None,
    late_entry: LateEntry = None,
    early_exit: EarlyExit = None,
    freeze: Freeze = "",
    span_by_similarity: BySimilarity = False,
    form: FormOption = None,
    no_deepstack: NoDeepStack = False,
    unprotect: Unprotect = False,
    keep: Keep = "",
    name: Name = "",
    notes: Annotated[str, typer.Option(help="Why these layers.")] = "",
    config: Config = None,
) -> Result:
    """Make a mask from scores, spans or by hand, and save it.

    With --late-entry, --early-exit, --freeze or --span-by-similarity vision tokens skip layers too, or alone where no layer is asked for;
    with --drop-attention or --drop-mlp layers lose a part, and with --drop-tower the vision encoder loses layers. --out writes it as JSON,
    as CSV, for mergekit (.yaml), optipfair (.optipfair.json), llama.cpp (.txt), Puzzletron (.puzzletron.json) or LLM-Drop (.llm-drop.json,
    with parts too), and where vision tokens skip layers, and nothing else, for ShortV (.shortv.txt), VTW (.vtw.txt) or FastV (.fastv.txt).
    """
    from dataclasses import replace

    from vlm_analysis.cli.lookup import find_recording, layers_to_keep
    from vlm_analysis.cli.results import of_mask
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.selection.strategies.many import PLAIN

    opened = find_recording(shelf, recording)
    _check_used(drop, criterion, budget, target)
    skipping = skipping_edit(opened, late_entry, early_exit, freeze, span_by_similarity, form, no_deepstack)
    made_beside = parts_edit(opened, drop_attention, drop_mlp), tower_edit(opened, drop_tower), skipping
    beside = [one for one in made_beside if one is not None]
    if beside and not (drop or criterion or budget is not None or preset or strategy != PLAIN):
        edit = Edit(opened.n_layers)
    elif preset or ranking or keep_deepstack:
        _check_preset(preset, {"--criterion": criterion, "--drop": drop, "--other": other, "--domain": domain})
        options = {"target": target, "weight": weight, "keep_deepstack": keep_deepstack, "seed": seed}
        edit = _of_preset(opened, ranking or "mixed", 0.25 if budget is None else budget, options)
    elif drop:
        edit = _by_hand(opened, drop)
    else:
        scored: dict[str, Any] = {"target": target, "other": other, "domain": domain, "weight": weight, "seed": seed}
        scored |= {"token_group": token_group, "share": share, "delta": delta}
        made: dict[str, Any] = {"strategy": strategy, "gap": gap, "seed": seed, "domain": domain}
        locks = opened.model.locks.keeping(layers_to_keep(keep), unprotect=unprotect)
        made |= {"token_group": span_tokens, "locks": locks}
        amount = 3 if budget is None else budget, unit
        edit = _of_criterion(shelf, opened, criterion or "block-influence", amount, scored, made)
    for one in beside:
        edit = one if edit.is_dense else replace(edit + one, name=f"{edit.name}, {one.words()}")
    edit = replace(edit, name=name or edit.name, notes=notes, model=opened.model)
    return of_mask(edit, keep_once(shelf, edit), config)


def _check_used(drop: str, criterion: str | None, budget: float | None, target: str | None) -> None:
    """Refuse or name options that would change nothing."""
    from vlm_analysis.selection.criteria.criteria import CRITERIA

    if drop:
        unused = {"--criterion": criterion, "--budget": budget, "--target": target}
        named = [name for name, value in unused.items() if value is not None]
        if named:
            raise MaskError(f"--drop names the layers itself: expected no {', '.join(named)} beside it. Leave one out.")
    row = CRITERIA.get(criterion or "block-influence")
    if target is not None and row is not None and "target" not in row.takes:
        warn(f"--target changes nothing here: {row.title} treats the prompts of all domains alike.")


def _check_preset(preset: str, beside: dict[str, str | None]) -> None:
    """Refuse an unknown preset, and options `beside` it that it sets itself."""
    from vlm_analysis.selection.strategies.domain_aware import DOMAIN_AWARE

    if preset != DOMAIN_AWARE:
        got = f"'{preset[:100]}'" if preset else "--ranking or --keep-deepstack without one"
        raise MaskError(f"There is no such preset: expected {DOMAIN_AWARE}, got {got}. Write --preset {DOMAIN_AWARE}.")
    unused = ", ".join(name for name, value in beside.items() if value)
    if unused:
        raise MaskError(
            f"The preset sets everything itself: expected no {unused} beside it, got one. Leave it out, or the preset."
        )


def _of_preset(recording: Recording, reading: str, share: float, options: dict[str, Any]) -> Edit:
    from vlm_analysis.selection.strategies.domain_aware import DOMAIN_AWARE, READINGS, domain_aware_mask

    key = reading if reading in READINGS else f"{DOMAIN_AWARE}-{reading}"
    return domain_aware_mask(recording, key, share, **options)


def _by_hand(recording: Recording, text: str) -> Edit:
    """Return the mask of layers or of a file, and warn of layers that should stay."""
    from vlm_analysis.cli.maskfiles import tell_locks

    edit = _read_by_hand(recording, text)
    tell_locks(edit, recording.model)
    return edit


def _read_by_hand(recording: Recording, text: str) -> Edit:
    from vlm_analysis.cli.lookup import layers_in, mask_bytes, path_of
    from vlm_analysis.cli.maskfiles import tool_words
    from vlm_analysis.edits.edit import PruneMask, only_mask
    from vlm_analysis.export.dialects import open_dialect

    layers, path = layers_in(text), path_of(text)
    if layers is None and path is not None:
        edit = open_dialect(mask_bytes(path), path.name, model=recording.model)
        if tool := tool_words(edit, path):
            warn(f"{short(text)}: read as {tool}")
        if edit.n_layers != recording.n_layers:
            raise MaskError(
                f"{path.name} does not fit the recording: expected a mask of {recording.n_layers} layers, got one of {edit.n_layers}. "
                "Name a recording of its model."
            )
        return only_mask(edit, f"{path.name} is no mask")
    if layers is None:
        raise MaskError(
            f"--drop names no layers: expected layers like 3,5-7 or a file, got '{text[:100]}'. Write their numbers."
        )
    name = f"drops {', '.join(map(str, layers))}"
    return PruneMask(recording.n_layers, layers, name=name, provenance={"made": "by hand"})


def _of_criterion(
    shelf: Workspace,
    recording: Recording,
    criterion: str,
    budget: tuple[float, str],
    scored: dict[str, Any],
    made: dict[str, Any],
) -> Edit:
    """Return the mask of a criterion.

    Args:
        budget: the amount and its unit.
        scored: options of `score_layers`.
        made: options of `make_mask`.
    """
    from vlm_analysis.selection.criteria.scoring import score_layers
    from vlm_analysis.selection.strategies.make import make_mask
    from vlm_analysis.selection.strategies.strategies import STRATEGIES

    row = STRATEGIES.get(made["strategy"])
    scores = None
    if row is None or row.needs == "scores":
        scores = score_layers(recording, criterion, **scored, damage=_damage(shelf, recording))
    amount, costs = _budget(recording, *budget)
    return make_mask(scores, budget=amount, n_layers=recording.n_layers, recording=recording, costs=costs, **made)


def _budget(recording: Recording, amount: float, unit: str) -> tuple[Any, Any]:
    """Return the budget for `make_mask`, and the costs that it is counted in."""
    from vlm_analysis.selection.strategies.budgets import Share

    if unit == "ratio":
        return float(amount), None
    if unit == "parameters":
        model = recording.model
        if not model.layer_parameters or not model.n_parameters:
            raise MaskError(
                "The budget cannot be counted in parameters: expected a recording with its model's parameters by layer, got an older one. "
                "Record again."
            )
        return Share(float(amount), total=float(model.n_parameters)), list(map(float, model.layer_parameters))
    if unit != "layers":
        raise MaskError(
            f"The budget has no such unit: expected layers, ratio or parameters, got '{unit[:100]}'. Choose one."
        )
    if not float(amount).is_integer():
        raise MaskError(
            f"A budget in layers is a whole number, got {amount:g}. Add --unit ratio, or name a whole number."
        )
    return int(amount), None


def _damage(shelf: Workspace, recording: Recording) -> Damage | None:
    """Return the damage that was measured on the recording's model and prompts; None where none was."""
    from vlm_analysis.selection.criteria.damage import read_damage
    from vlm_analysis.workbench.damages import find_damage

    item = find_damage(shelf, recording.model.fingerprint, recording.prompts)
    return read_damage(item, recording.model) if item else None
