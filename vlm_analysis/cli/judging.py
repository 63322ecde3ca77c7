"""The subcommands for one edited model: ask it beside the dense one, export it, and write the task on which a harness compares both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.cli.arguments import Anyway, EditArgument, Prompts, Reading
from vlm_analysis.cli.base import command
from vlm_analysis.cli.output import Result
from vlm_analysis.errors import PromptError, short
from vlm_analysis.progress import Progress
from vlm_analysis.words import counted

if TYPE_CHECKING:
    from vlm_analysis.prompts.prompts import Prompt, PromptSet
    from vlm_analysis.workbench.bench import Bench
    from vlm_analysis.workbench.workspace import Workspace


@command("Judge", ".json")
def ask(
    prompts: Prompts,
    edit: EditArgument,
    bench: Bench,
    on_progress: Progress,
    reading: Reading,
    prompt: Annotated[str, typer.Option(help="The id of the prompt; the first by default.")] = "",
    question: Annotated[str, typer.Option(help="A question of your own, in place of the prompt's.")] = "",
    image: Annotated[Path | None, typer.Option(help="An image of your own, in place of the prompt's.")] = None,
    anyway: Anyway = False,
) -> Result:
    """Ask the dense and the edited model the same question."""
    from vlm_analysis.cli.lookup import edits_for, find_prompts
    from vlm_analysis.cli.results import of_responses

    prompt_set = find_prompts(bench.workspace, prompts, on_progress, reading)
    chosen_prompt = _prompt(bench.open(prompt_set), prompt, question, image)
    (chosen,) = edits_for(bench, [edit], anyway, on_progress)
    responses = bench.ask(chosen_prompt, chosen, on_progress=on_progress)
    return of_responses(responses, chosen_prompt.question, chosen, pictures_of(chosen_prompt, image))


def pictures_of(asked: Prompt, image: Path | None) -> str:
    """Return which pictures are asked about, for a sentence: "chart.png of the prompt 'math-03'"."""
    names = [short(one.name, 80) if isinstance(one, Path) else "a picture" for one in asked.images]
    if len({*names}) == 1 and len(names) > 1:
        names = [counted(len(names), "picture")]
    return ", ".join(names) + ("" if image is not None else f" of the prompt '{short(asked.id, 80)}'")


def _prompt(prompts: PromptSet, name: str, question: str, image: Path | None) -> Prompt:
    """Return a prompt of the set, with another question or image if given."""
    from dataclasses import replace

    choice = next((one for one in prompts if one.id == name), None) if name else prompts[0]
    if choice is None:
        known = ", ".join(str(one.id) for one in prompts[:20])
        raise PromptError(
            f"There is no prompt '{name[:100]}': expected one of {known}, … got none of them. Choose an id."
        )
    if image is None and not question:
        return choice
    images, question = choice.images if image is None else (image,), question or choice.question
    asked = replace(choice, images=images, question=question, answer=None, answers=None)
    _ = asked.image_hashes  # an unreadable image is refused before the model is loaded
    return asked


@command("Export", ".json")
def export(
    edit: EditArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder; it must not hold anything.")],
    bench: Bench,
    on_progress: Progress,
    probe: Annotated[
        str,
        typer.Option(
            help="Prompts of which the probe in the folder is chosen, with their pictures; bundled ones by default."
        ),
    ] = "",
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Write no probe, which takes some answers of the model.")
    ] = False,
    masked: Annotated[
        bool,
        typer.Option(
            "--masked", help="Write narrow layers as zeros in weights of the dense size, which stock classes load."
        ),
    ] = False,
    anyway: Anyway = False,
) -> Result:
    """Write the edited model as a checkpoint, proved equal.

    Plain transformers loads it in a fresh process; its logits and an answer are compared with the edited model's. The folder holds a
    probe for servers too (see `strata probe`), and says which engines load it.
    """
    from vlm_analysis.cli.exported import of_manifest
    from vlm_analysis.cli.lookup import edits_for, find_prompts
    from vlm_analysis.export.probe.value import probe_words
    from vlm_analysis.export.serving.rules import open_serving
    from vlm_analysis.export.target import check_target

    folder = check_target(folder)  # before the model is loaded
    (chosen,) = edits_for(bench, [edit], anyway, on_progress)
    prompts = find_prompts(bench.workspace, probe) if probe else None
    asked = () if no_probe else prompts
    manifest = bench.export(chosen, folder, probe=asked, masked=masked, on_progress=on_progress)
    return of_manifest(manifest, folder, open_serving(folder), probe_words(folder))


@command("Export", ".json")
def probe(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Of an OpenAI-compatible server, as http://127.0.0.1:8000.")
    ],
    export: Annotated[Path, typer.Option("--export", help="The exported folder that it serves.")],
    on_progress: Progress,
    served: Annotated[str, typer.Option("--served", help="The name of the model there, if it lists several.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one answer may take.")] = 120.0,
) -> Result:
    """Ask a server whether it answers as the exported model does.

    It is asked the prompts in the folder's probe, by the server's chat completions. Their pictures go to this address and nowhere else.
    """
    from vlm_analysis.cli.exported import of_probe
    from vlm_analysis.export.probe.compare import probe_server

    return of_probe(probe_server(url, export, model=served, timeout_s=timeout, on_progress=on_progress))


@command("Export", ".json")
def export_task(
    prompts: Prompts,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder; it must not hold anything.")],
    shelf: Workspace,
    on_progress: Progress,
    name: Annotated[str, typer.Option("--name", help="Of the task: letters, digits and underscores.")] = "own_prompts",
    dense: Annotated[
        str, typer.Option(help="The dense model, for the commands: pocket-vl, pocket-vl-steps, a folder or a Hub id.")
    ] = "DENSE",
    edited: Annotated[str, typer.Option(help="The folder of the exported model, for the commands.")] = "EDITED",
    dtype: Annotated[
        str, typer.Option(help="Precision, for the commands: auto, float32, bfloat16 or float16.")
    ] = "auto",
    matches: Annotated[
        bool,
        typer.Option("--matches", help="Score normalised and numeric match too; Strata must be where the harness is."),
    ] = False,
) -> Result:
    """Write prompts as a benchmark for evaluation harnesses.

    The folder holds YAML and Parquet for lm-evaluation-harness and lmms-eval, and a README with the commands for the dense and the
    exported model.
    """
    from vlm_analysis.cli.exported import of_task
    from vlm_analysis.cli.lookup import find_prompts
    from vlm_analysis.export import harness
    from vlm_analysis.export.target import check_target
    from vlm_analysis.workbench.shelf import open_item

    folder = check_target(folder)  # before the prompts are read
    opened = open_item(find_prompts(shelf, prompts))
    options = {"name": name, "dense": dense, "edited": edited, "dtype": dtype, "matches": matches}
    return of_task(harness.export_task(opened, folder, **options, on_progress=on_progress))
