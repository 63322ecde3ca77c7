"""`dataset_info.json` of LLaMA-Factory: what the table beside it calls its columns, its roles and the keys of a turn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.archives import Files
from vlm_analysis.prompts.cells import Cells
from vlm_analysis.prompts.formats.base import Sample
from vlm_analysis.prompts.formats.turns import ASSISTANT, SYSTEM, USER, Tags

FILE = "dataset_info.json"
MOST_BYTES = 5_000_000
SHAREGPT, ALPACA = "sharegpt", "alpaca"
COLUMNS = {  # what LLaMA-Factory calls a column, and what the table calls it where no description says otherwise
    "messages": "conversations",
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    **{name: name for name in ("images", "system", "history", "chosen")},
}
_ROLES = {USER: ("user_tag", "human"), ASSISTANT: ("assistant_tag", "gpt"), SYSTEM: ("system_tag", "system")}


@dataclass(frozen=True)
class Described:
    """How a table is written: the columns of the table by those they stand for, and the tags of its turns."""

    columns: Mapping[str, str]
    tags: Tags

    def renamed(self, cells: Cells) -> Cells:
        """Return the cells of a row under the names that they have without a description."""
        taken = {name: cells[column] for name, column in self.columns.items() if column in cells}
        return {column: cell for column, cell in cells.items() if column not in self.columns.values()} | taken


def entry_of(files: Files, folder: str, table: str) -> Mapping[str, Any]:
    """Return the entry of `dataset_info.json` in a folder that names a table in it; {} where there is none.

    Other libraries write files of this name too (datasets beside its Arrow files), which name no table.

    Raises:
        PromptError: the file is no JSON, or longer than 5 MB.
    """
    path = str(PurePosixPath(folder) / FILE)
    if path not in files.names():
        return {}
    try:
        content = json.loads(files.read(path, MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise PromptError(
            f"'{short(path)}' could not be read: expected JSON with an entry for each table, got {short(error)}. Mend or remove it."
        ) from error
    entries = content.values() if isinstance(content, dict) else ()
    name = PurePosixPath(table).name
    return next((entry for entry in entries if isinstance(entry, dict) and entry.get("file_name") == name), {})


def description(sample: Sample, formatting: str) -> Described | None:
    """Return how the table of a sample is written, where its entry in `dataset_info.json` says so and is of this formatting."""
    entry = sample.described
    if "file_name" not in entry or str(entry.get("formatting") or ALPACA) != formatting:
        return None
    said = _texts(entry.get("columns"))
    columns = {usual: said.get(name, usual).strip().casefold() for name, usual in COLUMNS.items()}
    tags = _texts(entry.get("tags"))
    roles = {tags.get(name, usual).casefold(): role for role, (name, usual) in _ROLES.items()}
    return Described(columns, Tags(tags.get("role_tag", "from"), tags.get("content_tag", "value"), roles))


def _texts(value: object) -> dict[str, str]:
    return {name: text for name, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
