"""The subcommands that give a model back some of what dropped layers did: recover and replace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.arguments import Anyway, EditArgument, Name, Prompts, Reading
from vlm_analysis.cli.base import command
from vlm_analysis.cli.output import Result
from vlm_analysis.errors import EditError, NothingLearntError, short
from vlm_analysis.progress import Progress

if TYPE_CHECKING:
    from vlm_analysis.workbench.bench import Bench


How = Annotated[
    list[str] | None,
    typer.Option(
        help="ridge (the default): a linear map of all channels; scale: a factor for each; subspace: Short-LVLM's. Or tune: small, "
        "domain-aware, partners, projector. Or both: ridge+small. May be repeated with --report."
    ),
]
Report = Annotated[
    str,
    typer.Option(
        metavar="PROMPTS",
        help="Other prompts, on which the dense model, the cut one and each way are measured; where a way tunes, the dense model is "
        "tuned alike.",
    ),
]
Responses = Annotated[
    bool, typer.Option(help="With --report: whether the models write what they say where they do not answer exactly.")
]
Penalty = Annotated[float, typer.Option(min=0, help="Of ridge and scale; 0 for plain least squares.")]
Toward = Annotated[str, typer.Option(help="Where the penalty pulls: identity, or zero as ReplaceMe publishes it.")]
Directions = Annotated[int, typer.Option(min=1, help="Of subspace: directions.")]
Sign = Annotated[int, typer.Option(help="Of subspace: 1 doubles what is written there, -1 takes it out.")]
Weight = Annotated[
    str, typer.Option(help="Of subspace: mlp, the down-projection, or attention, the output projection.")
]
Tokens = Annotated[
    list[str] | None,
    typer.Option(
        "--token-group",
        help="Tokens that count: vision, text, answer, last or all; may be repeated. All by default.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Of tuning: a setting, as rank=16; may be repeated."),
]


@command("Recover", ".json")
def recover(
    prompts: Prompts,
    edit: EditArgument,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    how: How = None,
    report: Report = "",
    responses: Responses = True,
    penalty: Penalty = 1e-3,
    toward: Toward = "identity",
    k: Directions = 4,
    sign: Sign = 1,
    weight: Weight = "mlp",
    tokens: Tokens = None,
    settings: Settings = None,
    name: Name = "",
    anyway: Anyway = False,
) -> Result:
    """Give back a part of what dropped layers took away.

    "ridge", "scale" and "subspace" fold what they did into the layers before them: fitted on the prompts in closed form, in seconds and
    without training. The others tune the layers that are left, by a short training of low-rank updates. Each is saved as an edit that
    evaluate, cost and export take. With --report it is measured on other prompts, beside the dense and the cut model. Where nothing better
    than the edit is found, that is the result, and no edit is saved.
    """
    from vlm_analysis.cli.lookup import edits_for, find_prompts, known_edit
    from vlm_analysis.cli.recovered import of_ledger, of_nothing, of_repair, of_tuned
    from vlm_analysis.recovery.tunings import TUNINGS
    from vlm_analysis.recovery.ways import steps_of
    from vlm_analysis.workbench.ledgers import check_asked

    ways = how or ["ridge"]
    repairing: dict[str, Any] = {"penalty": penalty, "toward": toward, "k": k, "sign": sign, "weight": weight}
    repairing |= {"tokens": tuple(tokens)} if tokens else {}
    options = _options(ways, repairing, settings or [])
    if len(ways) > 1 and not report:
        raise EditError(
            f"There are {len(ways)} ways: expected one, or prompts to measure them on. Name some with --report."
        )
    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    reported = find_prompts(bench.workspace, report, on_progress, {}) if report else None
    known = known_edit(bench.workspace, edit)  # what needs no model is refused before it is loaded
    check_asked(known, ways, options, prompt_set, reported, measured=reported is not None)
    (chosen,) = edits_for(bench, [edit], anyway, on_progress)
    try:
        if reported is not None:
            about: dict[str, Any] = {"name": name, "responses": responses, "on_progress": on_progress}
            item = bench.measure_recovery(chosen, prompt_set, reported, ways, **about, **options)
            return of_ledger(bench.open(item), item)
        item = bench.recover(chosen, prompt_set, ways[0], name=name, **options, on_progress=on_progress)
    except NothingLearntError as finding:
        return of_nothing(chosen, ways, finding)
    return (of_tuned if steps_of(ways[0])[-1] in TUNINGS else of_repair)(bench.open(item), item)


def _options(ways: list[str], repairing: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Return the options of these ways: of repairs where one repairs, and settings where one tunes."""
    from vlm_analysis.recovery.solving import HOWS
    from vlm_analysis.recovery.tunings import TUNINGS
    from vlm_analysis.recovery.ways import steps_of

    steps = {step for way in ways for step in steps_of(way)}
    if settings and not steps & {*TUNINGS}:
        raise EditError(
            f"--set is of tuning: expected one of {', '.join(TUNINGS)} as --how, got {' and '.join(map(short, ways))}. Leave it out."
        )
    return (repairing if steps & {*HOWS} else {}) | _settings(settings)


@command("Recover", ".json")
def replace(
    prompts: Prompts,
    n: Annotated[int, typer.Argument(min=1, help="How many layers go: a window of one more becomes one layer.")],
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    window: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The first layer of the window. By default the window that changes the direction of the stream least on these prompts.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the training, as epochs=4, or answer_epochs=1 to learn the answers afterwards; may be repeated.",
        ),
    ] = None,
    name: Name = "",
) -> Result:
    """Train one layer to stand for a window (LLM-Streamline).

    The layer begins as the first of the window and learns to make of the stream what the window makes of it; all other layers stay. It is
    saved as an edit that evaluate, cost and export take, and exported as a plain checkpoint.
    """
    from vlm_analysis.cli.lookup import find_prompts
    from vlm_analysis.cli.recovered import of_replaced

    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    chosen = _settings(settings or [])
    item = bench.replace(prompt_set, n, window=window, name=name, on_progress=on_progress, **chosen)
    return of_replaced(bench.open(item), item)


def _settings(texts: list[str]) -> dict[str, Any]:
    """Return settings by name; a value is a number, null or a text."""
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not equals:
            raise EditError(
                f"There is no such setting: expected NAME=VALUE, as rank=16, got {short(repr(text))}. Write it so."
            )
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings
