"""`dataset_info.json` beside a table: its entry is found by the table's name; another content is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.archives import Folder, NoFiles
from vlm_analysis.prompts.formats.described import entry_of


def test_the_entry_that_names_the_table_is_found_in_the_tables_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    entries = {
        "identity": {"file_name": "identity.json"},
        "mine": {"file_name": "train.json", "formatting": "sharegpt"},
    }
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(entries))
    files = Folder(tmp_path)
    assert entry_of(files, "data", "data/train.json") == entries["mine"]
    assert entry_of(files, "data", "test.json") == {}
    assert entry_of(files, ".", "train.json") == {}
    assert entry_of(NoFiles("train.json"), ".", "train.json") == {}


@pytest.mark.parametrize("content", ["", "[" * 50_000, "\ud800"])
def test_what_is_no_json_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_info.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(
        PromptError, match=r"'dataset_info\.json' could not be read: expected JSON .* Mend or remove it\."
    ):
        entry_of(Folder(tmp_path), ".", "train.json")


@pytest.mark.parametrize(
    "content", ["[1]", "7", '{"citation": "", "features": {"image": {"_type": "Image"}}, "splits": null}']
)
def test_a_file_of_this_name_from_another_library_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_info.json").write_text(content)
    assert entry_of(Folder(tmp_path), ".", "train.json") == {}
