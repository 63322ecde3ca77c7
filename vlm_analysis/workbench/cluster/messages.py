"""What passes between a cluster's workers and the process that asks them: bytes in Strata's own form, so that nothing is unpickled.

A message is a zip without compression: a table of plain values, and files. It knows nothing of Ray.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import open_edit, save_edit
from vlm_analysis.errors import ClusterError, StrataError, short
from vlm_analysis.evaluation.kept import Scores
from vlm_analysis.guard.memory import refuse_larger
from vlm_analysis.guard.schema import Check
from vlm_analysis.guard.zips import check_entries, opened_zip
from vlm_analysis.prompts.archives import safe_name
from vlm_analysis.prompts.opening import open_prompts
from vlm_analysis.prompts.prompts import KEY_DIGITS, Prompt, PromptSet
from vlm_analysis.prompts.writing import write_prompts
from vlm_analysis.saved import parsed, plain

META = "meta.json"
MOST_FILES = 100_000
MOST_BYTES = 1 << 36  # of a message; free memory bounds it too


def packed(meta: Mapping[str, Any], folder: Path | None = None) -> bytes:
    """Return a message of plain values, with all files of a folder; equal ones have equal bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(META), json.dumps(meta, allow_nan=False, default=plain))
        if folder is not None:
            for path in sorted(one for one in folder.rglob("*") if one.is_file()):
                name = zipfile.ZipInfo(f"files/{path.relative_to(folder).as_posix()}")
                archive.writestr(name, path.read_bytes())
    return data.getvalue()


def unpacked(data: bytes, schema: Check, folder: Path | None = None) -> dict[str, Any]:
    """Return the values of a message after a check; its files go into a folder, where one is named.

    Raises:
        ClusterError: it is none, or does not fit the schema.
    """
    try:
        with opened_zip(io.BytesIO(data), MOST_FILES) as archive:
            entries = archive.infolist()
            check_entries(entries)
            refuse_larger(sum(entry.file_size for entry in entries), MOST_BYTES)
            meta = parsed(archive.read(META))
            schema(meta, "the message")
            if folder is not None:
                for entry in entries:
                    if entry.filename != META:
                        path = folder / safe_name(entry.filename.removeprefix("files/"))
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(archive.read(entry))
    except (ValueError, KeyError, zipfile.BadZipFile, RecursionError) as error:  # a PromptError of a name too
        raise ClusterError(
            f"A message of the cluster cannot be read: expected one of this version of Strata, got {short(error)}. Use the same version on "
            "all machines."
        ) from error
    content: dict[str, Any] = meta
    return content


def packed_prompts(meta: Mapping[str, Any], prompts: Sequence[Prompt]) -> bytes:
    """Return a message with prompts and their pictures."""
    with tempfile.TemporaryDirectory(prefix="strata-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for prompt in prompts:
            for image, content in zip(prompt.images, prompt.image_hashes, strict=True):
                if isinstance(image, Path) and image.name == f"{content}.png":  # as the workspace keeps them
                    shutil.copyfile(image, folder / "images" / image.name)
        write_prompts(PromptSet(prompts), folder)
        return packed(meta, folder)


def prompts_in(folder: Path, keys: Sequence[str]) -> list[Prompt]:
    """Return the prompts of a message's files, after a check that they are the ones with these keys.

    Raises:
        ClusterError: they are others.
    """
    try:
        prompts = list(open_prompts(folder))
        found = [prompt.key for prompt in prompts]
    except StrataError as error:
        raise ClusterError(f"The prompts of a part of the work cannot be read there. {error}") from error
    if found != [key[:KEY_DIGITS] for key in keys]:
        raise ClusterError(
            f"The prompts of a part of the work arrived changed: expected {len(keys)} as they were sent, got others. Use the same version "
            "of Strata on all machines."
        )
    return prompts


def score_lines(scores: Mapping[int, Mapping[str, Any]], numbers: Sequence[str]) -> list[list[Any]]:
    """Return scores by row as lines of a message: the row, whether it is matched exactly, and its numbers as texts."""
    return [
        [place, bool(score.get("exact_match")), *(repr(float(score.get(name, "nan"))) for name in numbers)]
        for place, score in scores.items()
    ]


def scores_in(lines: Sequence[Sequence[Any]], numbers: Sequence[str], rows: Collection[int]) -> Scores:
    """Return the scores of `score_lines` by row, to the last bit.

    Raises:
        ClusterError: they are of other rows than these.
    """
    if not {line[0] for line in lines} <= set(rows):
        raise ClusterError(
            "A part of the scores is another's: expected those of its edits and prompts, got others. Run it again."
        )
    return {
        place: {"exact_match": right, **dict(zip(numbers, map(float, texts), strict=True))}
        for place, right, *texts in lines
    }


def packed_edits(edits: Sequence[Edit]) -> bytes:
    """Return a message of edits, with what they learnt."""
    with tempfile.TemporaryDirectory(prefix="strata-") as name:
        for number, edit in enumerate(edits):
            save_edit(edit, Path(name) / f"{number:06d}.json")
        return packed({}, Path(name))


@contextmanager
def edits_in(data: bytes, schema: Check) -> Iterator[list[Edit]]:
    """Yield the edits of a message; what they learnt can be read until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="strata-") as name:
        unpacked(data, schema, Path(name))
        yield [open_edit(path) for path in sorted(Path(name).glob("*.json"))]
