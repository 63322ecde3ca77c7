"""The subcommands for work that several machines share: each works on a share, and one joins what they measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.cli.arguments import Anyway, Edits, Name, Prompts, Reading
from vlm_analysis.cli.base import command, say
from vlm_analysis.cli.output import Result
from vlm_analysis.progress import Progress

if TYPE_CHECKING:
    from vlm_analysis.workbench.bench import Bench
    from vlm_analysis.workbench.workspace import Workspace


@command("Share")
def work(
    prompts: Prompts,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    shard: Annotated[str, typer.Option("--shard", help="Which share this is: 2/8 is the second of eight.")],
    folder: Annotated[
        Path, typer.Option("--out", help="The folder of all shares, the same for each; `strata join` takes it.")
    ],
    edits: Edits = None,
    leave_one_out: Annotated[bool, typer.Option("--leave-one-out", help="Leave out each layer alone.")] = False,
    recorded: Annotated[bool, typer.Option("--record", help="Record the layers too.")] = False,
    attention: Annotated[bool, typer.Option("--attention", help="With --record: attention maps too.")] = False,
    anyway: Anyway = False,
) -> None:
    """Measure a share of the prompts, for a job array.

    Shares need no connection to each other: a folder that all of them see is enough. One that was killed goes on where it stopped.
    """
    from vlm_analysis.cli.lookup import edits_for, open_prompts_of
    from vlm_analysis.workbench.shards import check_work, shard_of, work_on_shard

    number = shard_of(shard)
    check_work(edits or [], leave_one_out, recorded, attention)
    prompt_set = open_prompts_of(bench.workspace, prompts, on_progress, reading)
    chosen = edits_for(bench, edits or [], anyway, on_progress)
    options = {"leave_one_out": leave_one_out, "recorded": recorded, "attention": attention}
    loaded = bench.loaded(on_progress=on_progress)
    work_on_shard(loaded, prompt_set, folder, number, edits=chosen, **options, on_progress=on_progress)
    say(f"Share {number[0]} of {number[1]} is done. When all are: strata join {folder}")


@command("Share", ".npz")
def join(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of all shares: --out of `strata work`.")],
    shelf: Workspace,
    name: Name = "",
) -> Result:
    """Join the shares of a folder in the workspace.

    What one machine would have measured is then there, and found by the other subcommands and the pages.
    """
    from vlm_analysis.cli.results import edit_words, of_evaluations, of_recording
    from vlm_analysis.workbench.joining import join_shards
    from vlm_analysis.workbench.shelf import open_item

    results = []
    for item in join_shards(folder, shelf, name):
        value = open_item(item)
        if item.kind == "recordings":
            results.append(of_recording(value, item))
        else:
            evaluations = value if isinstance(value, list) else [value]
            results.append(
                of_evaluations(evaluations, [one.edit.name or edit_words(one.edit) for one in evaluations], item)
            )
    *before, last = results
    text = "\n\n".join(one.text for one in results)
    return replace(last, text=text, data={**last.data, "before": [one.data for one in before]})
