"""The subcommand contest: which kind of edit keeps most at one budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_analysis.cli.arguments import Name, OnCluster, Prompts, Reading
from vlm_analysis.cli.base import command, warn
from vlm_analysis.cli.output import Result
from vlm_analysis.progress import Progress, no_progress

if TYPE_CHECKING:
    from vlm_analysis.workbench.bench import Bench


@command("Choose", ".json")
def contest(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    report: Annotated[str, typer.Option("--report", metavar="PROMPTS", help="Other prompts, to report on.")],
    share: Annotated[
        float,
        typer.Option("--share", min=0, max=1, help="How much goes: of the decoder layers' parameters, or of time."),
    ] = 0.3,
    of: Annotated[
        str, typer.Option("--of", help="What the share is of: parameters, or time, measured of a prefill here.")
    ] = "parameters",
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="depth, width, vision or mix; may be repeated, all by default."),
    ] = None,
    recover: Annotated[
        list[str] | None,
        typer.Option("--recover", help="Recover every edit too, as small; ridge is for depth alone. May be repeated."),
    ] = None,
    limit: Annotated[
        float | None, typer.Option("--limit", min=0, help="Minutes after which a search begins no further step.")
    ] = None,
    beam: Annotated[int, typer.Option("--beam", min=1, help="How many points of a search go on; 1 is greedy.")] = 1,
    fast: Annotated[bool, typer.Option("--fast", help="Score the width fast: other numbers.")] = False,
    timed: Annotated[bool, typer.Option("--timed", help="Time a prefill with each edit too.")] = False,
    name: Name = "",
    cluster: OnCluster = "",
) -> Result:
    """Depth or width? Compare the best edit of each kind.

    Dropped layers, narrow layers, skipped vision tokens and mixes are picked on the prompts and measured on those of --report. A share of
    parameters is rounded up to whole layers, and all kinds save that; for one of time each kind is timed first. What is known is not
    measured again.
    """
    from math import inf

    from vlm_analysis.cli.contest import of_contest
    from vlm_analysis.cli.lookup import find_prompts
    from vlm_analysis.selection.contest.contest import CONTESTANTS
    from vlm_analysis.workbench.budgets import Asked

    most_s = inf if limit is None else 60 * limit
    asked = tuple(kinds or CONTESTANTS)
    Asked(share, of, asked, tuple(recover or ()))  # what needs no model is refused before it is loaded
    choose = find_prompts(bench.workspace, prompts, on_progress, reading)
    reported = find_prompts(bench.workspace, report, on_progress, {})
    about: dict[str, Any] = {"of": of, "kinds": asked, "recover": recover or (), "most_s": most_s, "width": beam}
    about |= {"fast": fast, "timed": timed, "on_progress": on_progress}
    with bench.on_cluster(cluster):
        if on_progress is not no_progress:
            warn(bench.contest_needs(choose, reported, share, **about).words())
        item = bench.contest(choose, reported, share, name=name, **about)
    return of_contest(bench.open(item), item)
