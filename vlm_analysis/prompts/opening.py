"""Open prompts: find the source, recognise its format, read its rows, and make prompts of them.

    source -> Found -> Table -> Sample -> the format's rows -> prompts and problems

A bad row does not invalidate a set: it becomes a `Problem` with its row and id, and the others are read. Rows are read one after
another; a set holds 10,000 prompts, and of a larger source the rest is counted. Every image is decoded once, so broken ones are reported
here and not in the middle of a recording.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlm_analysis.assets import asset
from vlm_analysis.errors import PromptError, short
from vlm_analysis.guard.shared import check_path
from vlm_analysis.progress import stop_if_asked
from vlm_analysis.prompts.answers import answers_of
from vlm_analysis.prompts.cells import MAX_ROWS, Row, cell_text, choice_texts
from vlm_analysis.prompts.checks import MAX_IMAGES, MAX_NAME
from vlm_analysis.prompts.formats.base import Turns
from vlm_analysis.prompts.formats.own import images_of
from vlm_analysis.prompts.hubdata import PREFIX, Fetched, fetch_prompts
from vlm_analysis.prompts.problems import Problems
from vlm_analysis.prompts.prompts import Problem, Prompt, PromptSet
from vlm_analysis.prompts.reading import NotRecognised, Reading, Wanted, begin
from vlm_analysis.prompts.sources import Found, Pictures, found_at, found_fetched, found_upload
from vlm_analysis.words import counted

PACKS = asset("packs")
REPORT = "-report"  # how the names of packs end that masks are reported on, and not chosen on
STEPS = "steps"  # the pack that Pocket-VL Steps was made for; it has a fellow to report on too
MOST_PREVIEWED = 3
MOST_PREVIEW_ROWS = 200

PromptSource = Path | str | tuple[str, bytes] | Fetched


@dataclass(frozen=True)
class Preview:
    """What a source would be read as.

    Attributes:
        title: the format; "" where none is recognised.
        reason: by what it was recognised.
        columns: the table's columns, which `columns=` and `domain=` may name.
        prompts: the first three.
        problems: those before the third prompt.
    """

    title: str
    reason: str
    columns: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    problems: tuple[Problem, ...]


def bundled_packs() -> tuple[str, ...]:
    """Return the names of the prompt packs that come with the project, sorted."""
    return tuple(sorted(table.parent.name for table in PACKS.glob("*/prompts.jsonl")))


def choosing_packs() -> tuple[str, ...]:
    """Return the names of the packs that Pocket-VL's masks are chosen on; each has a fellow, named with `REPORT`, to report on."""
    return tuple(name for name in bundled_packs() if not name.endswith(REPORT) and name != STEPS)


def open_prompts(
    source: PromptSet | PromptSource,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    images: Path | str | None = None,
    domain: str | None = None,
    turns: Turns = "first",
    suffix: bool = False,
) -> PromptSet:
    """Return the prompts of a source; rows that were left out are listed in `.problems`, and `.read_as` says the format.

    Args:
        source: a PromptSet (returned as it is), a folder, a `.csv`, `.tsv`, `.json`, `.jsonl`, `.parquet` or `.arrow` table, a `.zip` or
            `.tar` archive, an upload `(name, data)` of such a file, or the name of a bundled pack (`bundled_packs()`; a folder of the same
            name is opened as "./name"). Of a dataset of the Hub a split is fetched and opened: "hub:owner/name/split", or with its
            configuration "hub:owner/name/config/split" (`hub_dataset` lists them). Images of tables on disk stay where they are; those in
            archives and cells are kept as files until the process ends.
        format: the format to read it as, such as "llava", where it is not the one that is recognised.
        columns: the table's column for each of Strata's, such as {"question": "prompt", "image": "file"}, where no format is recognised.
        images: the folder or archive that image names in the table are relative to; without it, the table's own folder.
        domain: the table's column that holds the domain.
        turns: which question of a conversation becomes a prompt: the "first", the "last", or "each".
        suffix: whether a benchmark's questions are followed by what the benchmark adds to them: options by letter, or a request for a short
            answer.

    Raises:
        PromptError: the source cannot be read as a whole, its format is not recognised, or no prompt is left.
    """
    if isinstance(source, PromptSet):
        return source
    reading = begin(_found(source), Wanted(format, columns, images, domain, turns, suffix))
    prompts, problems = _read(reading, MAX_ROWS)
    if len(prompts) == MAX_ROWS:
        for problem in _rest(reading):
            problems.add(problem)
    return PromptSet(prompts, problems.listed(), read_as=reading.read_as)


def preview_prompts(
    source: PromptSource,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    images: Path | str | None = None,
    domain: str | None = None,
    turns: Turns = "first",
    suffix: bool = False,
) -> Preview:
    """Return what `open_prompts` would read, without reading it all: the first three prompts, and the problems before them.

    Where no format is recognised, the title is blank, `problems` says why, and `columns` names what can be mapped with `columns=`.

    Raises:
        PromptError: the source cannot be read as a whole.
    """
    try:
        reading = begin(_found(source), Wanted(format, columns, images, domain, turns, suffix))
        prompts, problems = _read(reading, MOST_PREVIEWED, MOST_PREVIEW_ROWS)
    except NotRecognised as error:
        return Preview("", "", error.columns, (), (Problem(0, "", str(error)),))
    return Preview(*reading.read_as, reading.sample.columns, tuple(prompts), problems.listed())


def _found(source: object) -> Found:
    if isinstance(source, str) and source in bundled_packs():
        source = PACKS / source / "prompts.jsonl"
    if isinstance(source, str) and source.startswith(PREFIX):
        source = fetch_prompts(source, lambda *_: stop_if_asked())
    if isinstance(source, Fetched):
        return found_fetched(source)
    if isinstance(source, Path) or (isinstance(source, str) and source.strip()):
        check_path(Path(source), "Opening prompts at", PromptError, PACKS)
        return found_at(Path(source), ", ".join(map(repr, bundled_packs())) or "none here")
    if isinstance(source, tuple) and [type(part) for part in source] == [str, bytes]:
        return found_upload(*source)
    raise PromptError(
        f"prompts could not be opened: expected a path, a pack's name, (name, data) or a PromptSet, got "
        f"{'blank text' if isinstance(source, str) else type(source).__name__}. Pass one of these."
    )


def _read(reading: Reading, most: int, most_rows: int | None = None) -> tuple[list[Prompt], Problems]:
    """Return the first prompts, and the problems before the last of them.

    Raises:
        NotRecognised: there is no prompt, and the source is in another format than the one that was named.
    """
    prompts: list[Prompt] = []
    problems = Problems()
    try:
        for outcome in itertools.islice(_outcomes(reading), most_rows):
            if isinstance(outcome, Problem):
                problems.add(outcome)
            else:
                prompts.append(outcome)
            if len(prompts) == most:
                break
    except PromptError:
        if prompts or not reading.misread:
            raise
    if not prompts and reading.misread:
        raise NotRecognised(reading.misread, reading.sample.columns)
    return prompts, problems


def _outcomes(reading: Reading) -> Iterator[Prompt | Problem]:
    """Yield a prompt or a problem for each row, in order."""
    names: set[str] = set()
    for row in reading.rows:
        reading.pictures.shown.clear()
        row_id = str(row.number) if row.number else ""
        try:
            row_id = cell_text(row.cells.get("id"), "id") or row_id
            if row_id in names and not reading.keeps_ids:
                row_id = _free(row_id, row.number, names)
            prompt = _prompt(row, row_id, reading.pictures, is_duplicate=row_id in names)
        except PromptError as error:
            yield Problem(row.number, row_id[:MAX_NAME], reading.pictures.named(str(error)))
        else:
            names.add(row_id)
            yield prompt


def _free(name: str, number: int, names: set[str]) -> str:
    """Return a name that no prompt has yet: others' ids often name the picture, which several prompts share."""
    places = itertools.count(2)
    free = f"{name}, row {number}"
    while free in names:
        free = f"{name}, row {number} ({next(places)})"
    return free


def _prompt(row: Row, row_id: str, pictures: Pictures, *, is_duplicate: bool) -> Prompt:
    if row.error:
        raise PromptError(row.error)
    if is_duplicate:
        raise PromptError(f"the id '{short(row_id)}' is taken: expected distinct ids, got it again. Rename this row.")
    texts = {column: cell_text(row.cells.get(column), column) for column in ("question", "domain", "group", "task")}
    images = tuple(pictures.image(picture) for picture in images_of(row.cells)[: MAX_IMAGES + 1])
    choices = choice_texts(row.cells.get("choices"))
    answer, answers = answers_of(row.cells, choices)
    prompt = Prompt(images, **texts, id=row_id, answer=answer, answers=answers, choices=choices)
    _ = prompt.image_hashes  # decodes every image, so that a broken one is reported with its row
    return prompt


def _rest(reading: Reading) -> list[Problem]:
    """Count what is left of a source of which a set is full."""
    n_left = reading.n_left()
    if not n_left:
        return []
    rows = counted(n_left, "more row")
    return [
        Problem(
            0, "", f"{rows} left out: expected {MAX_ROWS:,} prompts at most. Split the source, and open a part of it."
        )
    ]
