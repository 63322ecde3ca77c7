"""The subcommands for one edited model: ask it beside the dense one, and export it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.cli.arguments import Anyway, EditArgument, Prompts
from vlm_analysis.cli.base import command
from vlm_analysis.cli.output import Result
from vlm_analysis.errors import PromptError
from vlm_analysis.progress import Progress

if TYPE_CHECKING:
    from vlm_analysis.prompts.prompts import Prompt, PromptSet
    from vlm_analysis.workbench.bench import Bench


@command("Judge", ".json")
def ask(
    prompts: Prompts,
    edit: EditArgument,
    bench: Bench,
    on_progress: Progress,
    prompt: Annotated[str, typer.Option(help="The id of the prompt; the first by default.")] = "",
    question: Annotated[str, typer.Option(help="A question of your own, in place of the prompt's.")] = "",
    image: Annotated[Path | None, typer.Option(help="An image of your own, in place of the prompt's.")] = None,
    anyway: Anyway = False,
) -> Result:
    """Ask the dense and the edited model the same question."""
    from vlm_analysis.cli.lookup import edits_for, find_prompts
    from vlm_analysis.cli.results import of_responses

    chosen_prompt = _prompt(bench.open(find_prompts(bench.workspace, prompts)), prompt, question, image)
    (chosen,) = edits_for(bench, [edit], anyway, on_progress)
    return of_responses(bench.ask(chosen_prompt, chosen, on_progress=on_progress), chosen_prompt.question, chosen)


def _prompt(prompts: PromptSet, name: str, question: str, image: Path | None) -> Prompt:
    """Return a prompt of the set, with another question or image if given."""
    from dataclasses import replace

    choice = next((one for one in prompts if one.id == name), None) if name else prompts[0]
    if choice is None:
        known = ", ".join(str(one.id) for one in prompts[:20])
        raise PromptError(
            f"There is no prompt '{name[:100]}': expected one of {known}, … got none of them. Choose an id."
        )
    if image is not None:
        choice = replace(choice, images=(image,), answer=None)
        _ = choice.image_hashes  # an unreadable image is refused before the model is loaded
    return replace(choice, question=question, answer=None) if question else choice


@command("Export", ".json")
def export(
    edit: EditArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder; it must not hold anything.")],
    bench: Bench,
    on_progress: Progress,
    anyway: Anyway = False,
) -> Result:
    """Write the edited model as a checkpoint, proved equal.

    Plain transformers loads it in a fresh process; its logits and an answer are compared with the edited model's.
    """
    from vlm_analysis.cli.lookup import edits_for
    from vlm_analysis.cli.results import of_manifest
    from vlm_analysis.export.checkpoint import check_target

    folder = check_target(folder)  # before the model is loaded
    (chosen,) = edits_for(bench, [edit], anyway, on_progress)
    return of_manifest(bench.export(chosen, folder, on_progress=on_progress), folder)
