"""The subcommands that run the model on prompts: record, evaluate, sweep, search and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.arguments import (
    MASK_FILES,
    Anyway,
    EditArgument,
    Edits,
    Keep,
    Name,
    OnCluster,
    Prompts,
    Reading,
    Unprotect,
)
from vlm_analysis.cli.base import command, warn
from vlm_analysis.cli.output import Result, check_out
from vlm_analysis.errors import EvaluationError
from vlm_analysis.progress import Progress
from vlm_analysis.words import counted

if TYPE_CHECKING:
    from vlm_analysis.prompts.prompts import PromptSet
    from vlm_analysis.workbench.bench import Bench


@command("Record", ".npz")
def record(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    name: Name = "",
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask the tasks of a probe suite of the pictures in PROMPTS: math or general; may be repeated."
        ),
    ] = None,
    attention: Annotated[bool, typer.Option("--attention", help="Read attention maps too; slower.")] = False,
    token_maps: Annotated[bool, typer.Option("--token-maps", help="Keep every token's cosine.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=64, help="Prompts per batch; more is faster on a GPU.")] = 1,
    cluster: OnCluster = "",
) -> Result:
    """Record what each decoder layer does to its input."""
    from vlm_analysis.cli.lookup import find_prompts, find_suite
    from vlm_analysis.cli.results import of_recording

    if suite:
        prompt_set = find_suite(bench.workspace, prompts, suite, on_progress, reading)
    else:
        prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    options = {"attention": attention, "token_maps": token_maps, "batch_size": batch_size}
    with bench.on_cluster(cluster):
        item = bench.record(prompt_set, name, **options, on_progress=on_progress)  # type: ignore[arg-type]
    return of_recording(bench.open(item), item)


@command("Judge", ".json")
def evaluate(
    prompts: Prompts,
    edit: EditArgument,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    name: Name = "",
    responses: Annotated[
        bool | None,
        typer.Option(
            "--responses/--no-responses", help="Let both models write responses; by default for up to 200 prompts."
        ),
    ] = None,
    anyway: Anyway = False,
) -> Result:
    """Score an edited model beside the dense one."""
    from vlm_analysis.cli.lookup import edits_for, find_prompts
    from vlm_analysis.cli.results import of_evaluation
    from vlm_analysis.workbench.evaluations import MAX_WRITTEN

    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    tell_unanswered(bench.open(prompt_set))
    (chosen,) = edits_for(bench, [edit], anyway, on_progress)
    if responses is None:
        responses = prompt_set.details.get("n", MAX_WRITTEN + 1) <= MAX_WRITTEN
    item = bench.evaluate(prompt_set, chosen, name, responses=responses, on_progress=on_progress)
    return of_evaluation(bench.open(item), bench.dense(prompt_set, on_progress=on_progress), item)


LeaveOneOut = Annotated[bool, typer.Option("--leave-one-out", help="Leave out each layer alone.")]
Compare = Annotated[
    bool, typer.Option("--compare", help="Compare the masks of every criterion and strategy at each budget.")
]
From = Annotated[
    str, typer.Option("--from", help="Compare masks chosen on other prompts: a saved recording or prompts.")
]
OneCriterion = Annotated[list[str] | None, typer.Option(help="Compare this criterion only; may be repeated.")]
OneStrategy = Annotated[list[str] | None, typer.Option(help="Compare this strategy only; may be repeated.")]
Most = Annotated[int | None, typer.Option(min=1, help="The largest budget; half of the layers by default.")]
OnePreset = Annotated[
    str, typer.Option(help="Compare the masks of this preset only: domain-aware, as in arXiv:2603.20275.")
]
Recovered = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOW",
        help="Compare every mask recovered so too, as recover does, on the prompts of --from; may be repeated.",
    ),
]
OfVision = Annotated[
    int,
    typer.Option(
        min=0,
        max=20,
        help="Compare so many edits of a scan too, in which vision tokens skip layers: alone and beside every mask.",
    ),
]
TimeFront = Annotated[
    int, typer.Option("--time-front", min=0, max=100, help="Then time so many masks of the front, in turn.")
]
Draws = Annotated[int, typer.Option(min=1, max=100, help="Random draws at each budget.")]
Memory = Annotated[int, typer.Option(min=1, help="Memory for shared states, MiB.")]


@command("Judge", ".npz")
def sweep(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    out: Path | None,
    edits: Edits = None,
    leave_one_out: LeaveOneOut = False,
    compare: Compare = False,
    source: From = "",
    criterion: OneCriterion = None,
    strategy: OneStrategy = None,
    most: Most = None,
    preset: OnePreset = "",
    recover: Recovered = None,
    vision: OfVision = 0,
    time_front: TimeFront = 0,
    draws: Draws = 5,
    memory: Memory = 1024,
    unprotect: Unprotect = False,
    anyway: Anyway = False,
    cluster: OnCluster = "",
) -> Result:
    """Score many masks at once.

    Those named as EDITS; with --leave-one-out each layer alone; with --compare or --from every criterion and strategy at each budget.
    """
    options: dict[str, Any] = {"criteria": criterion, "strategies": strategy, "most": most, "preset": preset}
    options |= {"recover": recover, "vision": vision}
    options |= {"n_draws": draws, "max_mib": memory}
    set_options = {name: value for name, value in options.items() if value}
    comparing = bool(compare or source)
    if [comparing, leave_one_out, bool(edits)].count(True) != 1:
        raise EvaluationError(
            "A sweep is of one kind: expected EDITS, --leave-one-out, or --compare (or --from), got none or several. Choose one."
        )
    if not comparing and (criterion or strategy or most or preset or recover or vision or time_front):
        raise EvaluationError(
            "--criterion, --strategy, --most, --preset, --recover, --vision and --time-front apply to comparisons: expected --compare or "
            "--from with them, got neither. Add one."
        )
    if comparing:
        options = {**set_options, "unprotect": unprotect}
        with bench.on_cluster(cluster):
            return _compare(bench, on_progress, prompts, reading, source, options, time_front)
    if out is not None:
        check_out(out, ())
    with bench.on_cluster(cluster):
        return _sweep(bench, on_progress, prompts, reading, edits or [], anyway)


def tell_unanswered(prompts: PromptSet) -> None:
    """Warn, before anything runs, where no prompt has an answer: then the dense model's responses are what counts."""
    if all(prompt.answer is None for prompt in prompts):
        warn(
            f"None of {counted(len(prompts), 'prompt')} has an answer: the dense model's responses are the reference, so what is kept is "
            "agreement with it."
        )


def _sweep(
    bench: Bench, on_progress: Progress, prompts: str, reading: Reading, edits: list[str], anyway: bool
) -> Result:
    """Score the dense model and edits; without edits, the model without each layer, which is saved."""
    from vlm_analysis.cli.lookup import edits_for, find_prompts
    from vlm_analysis.cli.results import edit_words, of_evaluations
    from vlm_analysis.edits.edit import Edit

    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    tell_unanswered(bench.open(prompt_set))
    if not edits:
        item = bench.measure_damage(prompt_set, on_progress=on_progress)
        evaluations = bench.open(item)
        return of_evaluations(evaluations, [edit_words(one.edit) for one in evaluations], item)
    chosen = edits_for(bench, edits, anyway, on_progress)
    every = list(dict.fromkeys([Edit(chosen[0].n_layers), *chosen]))
    evaluations = bench.scores(prompt_set, every, on_progress=on_progress)
    return of_evaluations(evaluations, [one.name or edit_words(one) for one in every])


def _compare(
    bench: Bench,
    on_progress: Progress,
    prompts: str,
    reading: Reading,
    source: str,
    options: dict[str, Any],
    n_timed: int,
) -> Result:
    from vlm_analysis.cli.lookup import find_prompts, saved_item
    from vlm_analysis.cli.results import of_comparison
    from vlm_analysis.cli.timing import of_timed

    report = find_prompts(bench.workspace, prompts, on_progress, reading)
    tell_unanswered(bench.open(report))
    recording = saved_item(bench.workspace, "recordings", source) if source else report
    choose = recording or find_prompts(bench.workspace, source, on_progress)
    item = bench.compare(choose, report, **options, on_progress=on_progress)
    if not n_timed:
        return of_comparison(bench.open(item), item)
    costs = bench.time_front(item, most=n_timed, on_progress=on_progress)
    return of_timed(bench.open(item), item, [bench.open(cost) for cost in costs])


@command("Choose", *MASK_FILES)
def search(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    strategy: Annotated[str, typer.Option(help="greedy, beam or evolutionary.")] = "greedy",
    budget: Annotated[int, typer.Option(min=1, help="Layers to drop.")] = 3,
    damage: Annotated[
        str, typer.Option(help="Damage as kl_to_dense, answer_nll, exact_match or token_agreement.")
    ] = "kl_to_dense",
    target: Annotated[str | None, typer.Option(help="Whose answers should survive: a domain; all by default.")] = None,
    worst: Annotated[bool, typer.Option("--worst", help="Count the worst domain of each mask.")] = False,
    width: Annotated[int, typer.Option(min=1, max=16, help="Of beam: masks kept after each step.")] = 4,
    population: Annotated[int, typer.Option(min=4, max=64, help="Of evolutionary: masks in a generation.")] = 16,
    generations: Annotated[int, typer.Option(min=1, max=40, help="Of evolutionary: number of generations.")] = 8,
    start: Annotated[
        list[str] | None, typer.Option(help="Of evolutionary: a mask to start from, named as EDIT; may be repeated.")
    ] = None,
    beside: Annotated[
        str,
        typer.Option(
            help="An edit that every mask stands beside, named as EDIT: such as vision tokens that skip layers."
        ),
    ] = "",
    unprotect: Unprotect = False,
    keep: Keep = "",
    name: Name = "",
    cluster: OnCluster = "",
) -> Result:
    """Search for the mask with the least measured damage."""
    from vlm_analysis.cli.lookup import edits_for, find_prompts, layers_to_keep
    from vlm_analysis.cli.results import of_mask
    from vlm_analysis.selection.search.objective import Objective

    options: dict[str, Any] = {"name": name, "unprotect": unprotect, "keep": layers_to_keep(keep)}
    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    objective = Objective(damage, target, worst)
    settings: dict[str, Any] = {"width": width} if strategy == "beam" else {}
    if strategy == "evolutionary":
        settings = {"population": population, "generations": generations}
        settings["start"] = edits_for(bench, start or [], False, on_progress)
    if beside:
        (settings["beside"],) = edits_for(bench, [beside], False, on_progress)
    with bench.on_cluster(cluster):
        item = bench.search(prompt_set, strategy, budget, objective, on_progress=on_progress, **options, **settings)
    return of_mask(bench.open(item), item)


@command("Judge", ".json")
def cost(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    edits: Annotated[list[str], typer.Argument(metavar="EDITS", help="Each as in evaluate.")],
    line: Annotated[
        bool, typer.Option("--line", help="Measure other budgets too, up to half of the layers; takes one EDIT.")
    ] = False,
    rounds: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Timed runs of each prompt; fewer end sooner, with wider intervals."),
    ] = 7,
    anyway: Anyway = False,
) -> Result:
    """Measure what edits save in weights and in time."""
    from vlm_analysis.cli.costed import of_costs
    from vlm_analysis.cli.lookup import edits_for, find_prompts

    if line and len(edits) != 1:
        raise EvaluationError(
            f"--line takes one EDIT: expected 1, got {len(edits)}. Leave out --line or the other edits."
        )
    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    chosen = edits_for(bench, edits, anyway, on_progress)
    if line:
        items = [bench.measure_cost(prompt_set, chosen[0], line=True, rounds=rounds, on_progress=on_progress)]
    else:
        items = bench.measure_costs(prompt_set, chosen, rounds=rounds, on_progress=on_progress)
    return of_costs([bench.open(item) for item in items], items)
