"""What is done with one edited model: ask it beside the dense one, and export it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_analysis.cli.base import command
from vlm_analysis.cli.found import Found
from vlm_analysis.cli.measuring import Anyway, EditArgument, Prompts
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
) -> Found:
    """Ask the dense and the edited model the same."""
    from vlm_analysis.cli.named import edits_for, prompts_named
    from vlm_analysis.cli.told import of_responses

    asked = _prompt(bench.open(prompts_named(bench.workspace, prompts)), prompt, question, image)
    (chosen,) = edits_for(bench, [edit], anyway, on_progress)
    return of_responses(bench.ask(asked, chosen, on_progress=on_progress), asked.question, chosen)


def _prompt(prompts: PromptSet, name: str, question: str, image: Path | None) -> Prompt:
    """Return the prompt that is asked: one of the set, with another question or image where given."""
    from dataclasses import replace

    found = next((one for one in prompts if one.id == name), None) if name else prompts[0]
    if found is None:
        known = ", ".join(str(one.id) for one in prompts[:20])
        raise PromptError(
            f"There is no prompt '{name[:100]}': expected one of {known}, … got none of them. Choose an id."
        )
    if image is not None:
        found = replace(found, images=(image,), answer=None)
        _ = found.image_hashes  # what cannot be opened is refused before the model is loaded
    return replace(found, question=question, answer=None) if question else found


@command("Export", ".json")
def export(
    edit: EditArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder; it must not hold anything.")],
    bench: Bench,
    on_progress: Progress,
    anyway: Anyway = False,
) -> Found:
    """Write the edited model as a checkpoint, proved equal.

    Plain transformers loads it in a fresh process; its logits and an answer are compared with the edited model's.
    """
    from vlm_analysis.cli.named import edits_for
    from vlm_analysis.cli.told import of_manifest

    (chosen,) = edits_for(bench, [edit], anyway, on_progress)
    return of_manifest(bench.export(chosen, folder, on_progress=on_progress), folder)
