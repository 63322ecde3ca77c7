"""Find what an argument names: prompts, recordings, edits and other saved items, in files or in the workspace.

A saved item is named by its id, or by its name if that is unique. Of several with the same model, prompts and details the newest is
found.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vlm_analysis.cli.advice import in_options
from vlm_analysis.cli.base import warn
from vlm_analysis.edits.shorthand import layers_in
from vlm_analysis.errors import MaskError, ModelError, NoLayerCountError, PromptError, StrataError, WorkspaceError
from vlm_analysis.files import read_bytes
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.workbench.workspace import KINDS, Item, Workspace, clean_name

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.model_info import ModelInfo
    from vlm_analysis.prompts.prompts import PromptSet
    from vlm_analysis.recording.recording import Recording
    from vlm_analysis.workbench.bench import Bench

LISTED = 20
SHOWN = 100  # characters of a name in a message
MOST_BYTES = 1 << 26  # of a mask file


def find_prompts(
    shelf: Workspace, text: str, on_progress: Progress = no_progress, reading: Mapping[str, Any] = MappingProxyType({})
) -> Item:
    """Return the item of a prompt set: bundled packs ("math", "general,math"), a saved one, or another source, which is saved.

    Other sources are a file, a folder, and "hub:owner/name/split", which is fetched. `reading` says how such a one is read, as arguments of
    `open_prompts`.

    Raises:
        StrataError: there is none, there are several, or the source cannot be read; or `reading` says how to read what is no source.
    """
    from vlm_analysis.workbench.shelf import keep_prompts

    prompts, name = _prompts_of(shelf, text, on_progress, reading)
    return prompts if isinstance(prompts, Item) else keep_prompts(shelf, prompts, name)


def open_prompts_of(
    shelf: Workspace, text: str, on_progress: Progress = no_progress, reading: Mapping[str, Any] = MappingProxyType({})
) -> PromptSet:
    """Return what `find_prompts` finds, as a value: sources are not saved, which several machines at once would each do.

    Raises:
        StrataError: as `find_prompts`.
    """
    from vlm_analysis.workbench.shelf import open_item

    prompts, _ = _prompts_of(shelf, text, on_progress, reading)
    opened: PromptSet = open_item(prompts) if isinstance(prompts, Item) else prompts
    return opened


def _prompts_of(
    shelf: Workspace, text: str, on_progress: Progress, reading: Mapping[str, Any]
) -> tuple[Item | PromptSet, str]:
    """Return saved prompts as their Item, others as a value; and their name."""
    from vlm_analysis.prompts.hubdata import PREFIX, fetch_prompts
    from vlm_analysis.prompts.opening import bundled_packs, open_prompts

    packs, saved = bundled_packs(), saved_item(shelf, "prompts", text)
    names = sorted({part.strip() for part in text.split(",")})
    path = None if set(names) <= set(packs) else path_of(text)
    if saved is not None and path is not None:
        raise _two(text, saved)
    if path is None and (saved is not None or set(names) <= set(packs)):
        check_not_read(text, reading)
    if saved is not None:
        return saved, saved.name
    if set(names) <= set(packs):
        return reduce(operator.add, map(open_prompts, names)), f"Bundled packs: {', '.join(names)}"
    if path is None and not text.startswith(PREFIX):
        what = f"a bundled pack ({', '.join(packs)}), a file or folder, saved prompts, or {PREFIX}owner/name/split"
        raise PromptError(_unknown(shelf, ("prompts",), text, what))
    source = path or fetch_prompts(text, on_progress)
    prompts = open_prompts(source, **reading)
    tell_reading(_short(text), prompts)
    return prompts, clean_name(path.name if path else text.removeprefix(PREFIX))


def find_suite(
    shelf: Workspace,
    text: str,
    suites: Sequence[str],
    on_progress: Progress = no_progress,
    reading: Mapping[str, Any] | None = None,
) -> Item:
    """Return the item of probe suites asked of the pictures of a folder or archive, or of prompts, which is saved.

    Raises:
        StrataError: as `find_prompts` and `probe_prompts`.
    """
    from vlm_analysis.prompts.sources import ARCHIVE_SUFFIXES
    from vlm_analysis.prompts.suites import probe_prompts
    from vlm_analysis.workbench.shelf import keep_prompts, open_item

    path = path_of(text)
    if path is not None and not reading and (path.is_dir() or path.suffix.lower() in ARCHIVE_SUFFIXES):
        name, prompts = path.name, probe_prompts(path, suites)
    else:
        item = find_prompts(shelf, text, on_progress, reading or {})
        name, prompts = item.name, probe_prompts(open_item(item), suites)
    tell_reading(_short(text), prompts)
    return keep_prompts(shelf, prompts, clean_name(f"{name}, probe suite {' and '.join(suites)}"))


def tell_reading(name: str, prompts: PromptSet) -> None:
    """Warn of the format that a source was read as, where it is another's, and of what was left out, a line for each reason."""
    from vlm_analysis.prompts.formats import own, texts
    from vlm_analysis.prompts.problems import problem_lines

    if prompts.read_as is not None and prompts.read_as.title not in (own.TITLE, texts.TITLE):
        warn(f"{name}: read as {prompts.read_as}")
    for line in problem_lines(prompts.problems)[:LISTED]:
        warn(f"{name}: {in_options(line)}")


def check_not_read(text: str, reading: Mapping[str, Any]) -> None:
    """Check that nothing says how something is read that is no file.

    Raises:
        PromptError: something does.
    """
    if reading:
        raise PromptError(
            f"'{_short(text)}' is read as it is: expected a file or folder for {', '.join(f'--{name}' for name in reading)}, got none. "
            "Leave out these options, or name a file."
        )


def find_recording(shelf: Workspace, text: str) -> Recording:
    """Return the recording that is saved under a name or id, or in a file.

    Raises:
        StrataError: there is none, there are several, or its file is damaged.
    """
    from vlm_analysis.recording.recording import open_recording
    from vlm_analysis.workbench.shelf import open_item

    item_or_file = item_or_path(shelf, ("recordings",), text, "a file, or the name or id of a saved recording")
    recording: Recording = open_item(item_or_file) if isinstance(item_or_file, Item) else open_recording(item_or_file)
    return recording


def find_edits(shelf: Workspace, texts: Sequence[str], model: Callable[[], ModelInfo]) -> list[Edit]:
    """Return the edits that are saved under names or ids, in files, or written as layers: "3,5-7", or "dense".

    `model` returns the model; it is called last, and only for edits that need it.

    Raises:
        StrataError: there is none, there are several, or a file is damaged.
    """
    later = [_edit(shelf, text) for text in texts]
    return [edit(model()) if callable(edit) else edit for edit in later]


def known_edit(shelf: Workspace, text: str) -> Edit | None:
    """Return the edit that a text names, as far as that can be told without the model; None where that takes the model's shape.

    Raises:
        StrataError: as `find_edits`.
    """
    from vlm_analysis.edits.edit import Edit

    found = Edit(1) if text.strip() == "dense" else _edit(shelf, text)  # dense it is of any number of layers
    return None if callable(found) else found


def _edit(shelf: Workspace, text: str) -> Edit | Callable[[ModelInfo], Edit]:
    from vlm_analysis.edits.edit import Edit, PruneMask
    from vlm_analysis.edits.files import with_learnt
    from vlm_analysis.export.dialects import open_dialect
    from vlm_analysis.workbench.shelf import open_item

    if text.strip() == "dense":
        return lambda model: Edit(model.n_layers)
    saved, path = saved_item(shelf, "masks", text), path_of(text)
    layers = layers_in(text) if saved is None and path is None else None
    if layers is not None:
        return lambda model: PruneMask(model.n_layers, layers)
    item_or_file = item_or_path(
        shelf, ("masks",), text, 'layers ("3,5-7"), dense, a file, or the name or id of a saved mask'
    )
    if isinstance(item_or_file, Item):
        edit: Edit = open_item(item_or_file)
        return edit
    data = mask_bytes(item_or_file)
    try:
        return with_learnt(open_dialect(data, item_or_file.name), item_or_file)
    except NoLayerCountError:
        return lambda model: open_dialect(data, item_or_file.name, model=model)


def mask_bytes(path: Path) -> bytes:
    """Return the content of a mask file.

    Raises:
        MaskError: it cannot be read, or is too large for one.
    """
    try:
        return read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise MaskError(f"No mask can be read at {path}: {error.strerror}. Name another file.") from error


def edits_for(bench: Bench, texts: Sequence[str], anyway: bool, on_progress: Any) -> list[Edit]:
    """Return the named edits, for the model of the Bench.

    Raises:
        StrataError: as `find_edits`; or one was made for another model and `anyway` is not set.
    """
    edits = find_edits(bench.workspace, texts, lambda: bench.loaded(on_progress=on_progress).info)
    for text, edit in zip(texts, edits, strict=True):
        if edit.model is not None and not anyway:
            check_model(edit.model, bench.loaded(on_progress=on_progress).info, f"The mask '{_short(text)}'")
    return edits


def check_model(owner: ModelInfo, at_hand: ModelInfo, what: str) -> None:
    """Check that something was made for the model in use.

    Raises:
        ModelError: it was made for another one.
    """
    if owner.fingerprint != at_hand.fingerprint:
        raise ModelError(
            f"{what} was made for another model: expected {at_hand.name} ({at_hand.fingerprint[:8]}), got {owner.name} "
            f"({owner.fingerprint[:8]}). Name its model by --model, or add --anyway."
        )


def layers_to_keep(text: str) -> tuple[int, ...]:
    """Return the layers of --keep.

    Raises:
        MaskError: the text names none.
    """
    layers = layers_in(text) if text else ()
    if layers is None:
        raise MaskError(
            f"--keep names no layers: expected layers like 3,5-7, got '{text[:SHOWN]}'. Write their numbers."
        )
    return layers


def item_or_path(shelf: Workspace, kinds: Sequence[str], text: str, expected: str) -> Item | Path:
    """Return the saved item, of one of the kinds, or the path of the file that a text names.

    Raises:
        WorkspaceError: there is neither, both, or several items of that name.
    """
    items = [item for kind in kinds for item in shelf.items(kind)]
    saved, path = _one_of(items, text), path_of(text)
    if saved is not None and path is not None:
        raise _two(text, saved)
    if saved is None and path is None:
        raise WorkspaceError(_unknown(shelf, kinds, text, expected))
    return saved or path  # type: ignore[return-value]  # one of them is there


def saved_item(shelf: Workspace, kind: str, text: str) -> Item | None:
    """Return the saved item of a kind by its id or name; None where there is none.

    Raises:
        WorkspaceError: there are several of that name.
    """
    return _one_of(shelf.items(kind), text)


def find_comparison(shelf: Workspace, text: str) -> Item:
    """Return the saved comparison, or story of version 0.1, of an id or name.

    Raises:
        WorkspaceError: there is none, or there are several of that name.
    """
    kinds = ("comparisons", "stories")
    item = _one_of([one for kind in kinds for one in shelf.items(kind)], text)
    if item is None:
        raise WorkspaceError(_unknown(shelf, kinds, text, "the name or id of a saved comparison"))
    return item


def _one_of(items: Sequence[Item], text: str) -> Item | None:
    matches = [item for item in items if item.id == text] or [
        item for item in items if item.name in (text, clean_name(text))
    ]
    if len({repr((item.kind, item.model, item.prompts, item.details)) for item in matches}) > 1:
        raise WorkspaceError(
            f"'{_short(text)}' is the name of {len(matches)} saved items: expected the name of one, or an id. Choose an id:\n"
            f"{listed(matches)}"
        )
    return matches[0] if matches else None


def path_of(text: str) -> Path | None:
    """Return the path of an existing file or folder; None if there is none."""
    try:
        path = Path(text).expanduser()
        return path if text.strip() and path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None


def every_item(shelf: Workspace) -> list[Item]:
    """Return all saved items, by kind, newest first."""
    return [item for kind in KINDS for item in shelf.items(kind)]


def listed(items: Sequence[Item]) -> str:
    """Return one line for each of the first items: id and name."""
    lines = [f"  {item.id}  {item.name}" for item in items[:LISTED]]
    return "\n".join([*lines, f"  and {len(items) - LISTED} more"] if len(items) > LISTED else lines)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _two(text: str, saved: Item) -> StrataError:
    return WorkspaceError(
        f"'{_short(text)}' is both a file and saved: expected one of them. Write ./{_short(text)} for the file, or the id {saved.id}."
    )


def _unknown(shelf: Workspace, kinds: Sequence[str], text: str, expected: str) -> str:
    """Return the message on a text that names nothing of these kinds, with what it names instead, and what there is."""
    items = every_item(shelf)
    other = next((item for item in items if text in (item.id, item.name)), None)
    found = "none of these" if other is None else f"one of the saved {other.kind}"
    known = [item for item in items if item.kind in kinds]
    saved = f"Saved are:\n{listed(known)}" if known else "Nothing of the kind is saved yet."
    what = f"no saved {kinds[0]}" if len(kinds) == 1 else "nothing saved"
    return f"'{_short(text)}' names {what}: expected {expected}, got {found}. {saved}"
