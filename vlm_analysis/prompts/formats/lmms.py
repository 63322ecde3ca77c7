"""A task of lmms-eval: its YAML file beside a table says which columns hold the image, the question, the answer and the choices.

Functions (`!function utils.f`) are never run: where the file has one, the column is `image` (or `images`), `question`, `answer` or
`choices`. `pre_prompt` and `post_prompt` of the default model stand around the question where suffixes are asked for. Fields as in
lmms-eval's task guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.archives import Files
from vlm_analysis.prompts.cells import Cells, Row, as_list, cell_text, choice_of, is_blank
from vlm_analysis.prompts.formats.base import Sample, Source, mapped, no_video, pictures_of

NAME = "lmms"
TITLE = "a task of lmms-eval"
MOST_BYTES = 100_000
MOST_FILES = 50
USUAL = {"doc_to_visual": "image", "doc_to_text": "question", "doc_to_target": "answer", "doc_to_choice": "choices"}
_COLUMN = re.compile(r"\{\{\s*(\w+)\s*\}\}|(\w[\w -]*)")


class _Loader(yaml.SafeLoader):
    """Plain values; functions are None."""


_Loader.add_constructor("!function", lambda loader, node: None)


def task_of(files: Files, folder: str, names: Iterable[str]) -> Mapping[str, Any]:
    """Return the content of the one YAML file of a task among some in a folder, with its name as `task_file`.

    Files that are no YAML, or longer than a task, are none; without one, or with several, it is {}.
    """
    written = [name for name in names if PurePosixPath(name).suffix.lower() in (".yaml", ".yml")]
    found = []
    for name in written[:MOST_FILES]:
        content = _content(files, str(PurePosixPath(folder) / name))
        if isinstance(content, dict) and "doc_to_text" in content:
            found.append(content | {"task_file": name})
    return found[0] if len(found) == 1 else {}


def matches(sample: Sample) -> str | None:
    """Return the reason where the file of a task names a column of the question or of the answer, and the table has it."""
    task = sample.described
    named = [name for key in ("doc_to_text", "doc_to_target") if (name := _plain(task.get(key))) and sample.has(name)]
    columns = _columns(task)
    images = sample.has(columns["doc_to_visual"]) or sample.has("images")
    if not named or not images or not sample.has(columns["doc_to_text"]):
        return None
    return f"'{columns['doc_to_text']}' and '{columns['doc_to_target']}', as {short(task.get('task_file'), 80)} says"


def rows(source: Source) -> Iterator[Row]:
    """Yield the rows of the table, in the columns that the task names."""
    task = source.sample.described
    columns = _columns(task)
    above, below = _around(task) if source.options.suffix else ("", "")

    def prompt(cells: Cells) -> Cells:
        no_video(cells)
        image = next((cells[one] for one in (columns["doc_to_visual"], "images") if not is_blank(cells.get(one))), None)
        question = cell_text(cells.get(columns["doc_to_text"]), "question")
        choices = [cell_text(one, "choices") for one in as_list(cells.get(columns["doc_to_choice"]), "choices")]
        target = cells.get(columns["doc_to_target"])
        answers = target if isinstance(target, list) else [target]
        texts = [choice_of(one, choices) if choices else cell_text(one, "answer") for one in answers]
        kept = {name: cells[name] for name in ("id", "domain", "task", "group") if name in cells}
        accepted = [text for text in texts if text]
        return kept | {
            "images": pictures_of(image),
            "question": f"{above}{question}{below}",
            "answer": next(iter(accepted), ""),
            "answers": accepted,
            "choices": choices or None,
        }

    return mapped(source, prompt)


def _content(files: Files, name: str) -> Any:
    try:
        return yaml.load(files.read(name, MOST_BYTES), _Loader)
    except (PromptError, yaml.YAMLError, ValueError, RecursionError, TypeError):
        return None


def _columns(task: Mapping[str, Any]) -> dict[str, str]:
    return {key: _plain(task.get(key)) or usual for key, usual in USUAL.items()}


def _plain(value: object) -> str:
    """Return the column that a text names, alone or as "{{column}}"; "" where it is something else."""
    found = _COLUMN.fullmatch(value.strip()) if isinstance(value, str) else None
    return (found[1] or found[2]).casefold() if found else ""


def _around(task: Mapping[str, Any]) -> tuple[str, str]:
    """Return the texts before and after the question, of the default model."""
    kwargs = task.get("lmms_eval_specific_kwargs") or task.get("model_specific_prompt_kwargs")
    usual = kwargs.get("default") if isinstance(kwargs, dict) else None
    texts = usual if isinstance(usual, dict) else {}
    above, below = (texts.get(key) for key in ("pre_prompt", "post_prompt"))
    return above if isinstance(above, str) else "", below if isinstance(below, str) else ""
