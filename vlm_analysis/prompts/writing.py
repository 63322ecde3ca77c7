"""Write a prompt set as a table with its images, from which it opens as it was."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from vlm_analysis.errors import PromptError, short
from vlm_analysis.files import write_atomically
from vlm_analysis.prompts.archives import Folder
from vlm_analysis.prompts.images import open_unchanged
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.prompts.sources import find_table
from vlm_analysis.prompts.tables import MAX_TABLE_BYTES


def write_prompts(prompts: PromptSet, folder: Path) -> Path:
    """Write `prompts.jsonl` and `images/<hash>.png` into a folder and return the path of the table.

    `open_prompts(folder)` returns a set with the same fingerprint. Equal images are written once. An earlier
    `prompts.jsonl` is replaced atomically at the end.

    Raises:
        PromptError: an image cannot be read, the folder holds another prompt table, or it cannot be written.
    """
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        table = find_table(Folder(folder), any_depth=False)
        if table not in (None, "prompts.jsonl"):
            raise PromptError(
                f"the prompts could not be written: expected a folder without a table, got '{short(folder / str(table))}'. "
                "Choose another folder."
            )
        lines = [_write_images(prompt, folder) for prompt in prompts]
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        if len(data) > MAX_TABLE_BYTES:
            raise PromptError(
                f"the prompts are too long: expected {MAX_TABLE_BYTES:,} bytes, got {len(data):,}. Split them."
            )
        write_atomically(folder / "prompts.jsonl", partial(_write_bytes, data))
    except OSError as error:
        raise PromptError(
            f"the prompts could not be written to '{short(folder)}': {short(error)}. Choose another folder."
        ) from error
    return folder / "prompts.jsonl"


def _write_images(prompt: Prompt, folder: Path) -> dict[str, object]:
    names = []
    for image, name in zip(prompt.images, prompt.image_hashes, strict=True):
        names.append(f"images/{name}.png")
        if not (folder / names[-1]).exists():
            opened = open_unchanged(image, name)
            write_atomically(folder / names[-1], partial(opened.save, format="PNG"))
    cells: dict[str, object] = {"id": prompt.id, "images": names, "question": prompt.question, "domain": prompt.domain}
    optional = {name: getattr(prompt, name) for name in ("answer", "answers", "choices", "group", "task")}
    return cells | {name: value for name, value in optional.items() if value is not None}


def _write_bytes(data: bytes, path: Path) -> None:
    path.write_bytes(data)
