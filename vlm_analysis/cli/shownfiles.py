"""What `strata show` makes of a file: a Result of the kind that it is, or one reason why it is of none."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_analysis.cli.arguments import Reading
from vlm_analysis.cli.output import Result
from vlm_analysis.errors import MaskError, NoLayerCountError, PromptError, WorkspaceError, short

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit

SHOWN = "prompts, a recording, a mask, an evaluation, a scan, a probe of answers, a cost, a comparison, a contest or a ledger of recovery"
_MASKS_ALONE = (".txt", ".yaml", ".yml")  # no prompts are in a file of these endings


def of_file(path: Path, reading: Reading, out: Path | None) -> Result:
    """Return the content of a file or folder: what Strata wrote says its kind, masks of other tools are known by their fields.

    All else holds prompts, as does what is to be read so.

    Raises:
        StrataError: it is of no kind, or damaged; or its mask is to be written, and the file does not say how many layers the model has.
    """
    from vlm_analysis.saved import kind_in

    if (path / "config.json").is_file():
        advice = f"Name it by --model, as in: strata record general --model {shlex.quote(str(path))}"
        raise _none_of_these(path, "a model", advice)
    if not reading and path.is_file():
        made = _makers().get(kind_in(path)) if path.suffix.lower() in (".npz", ".json") else None
        if made is not None:
            return made(path)
        if (mask := _of_foreign_mask(path, out)) is not None:
            return mask
    return _of_prompts(path, reading)


def _makers() -> dict[str, Callable[[Path], Result]]:
    """Return by kind what opens a file that Strata wrote and makes a Result of it."""
    from vlm_analysis.cli import recovered, results
    from vlm_analysis.cli.conditions import of_probe
    from vlm_analysis.cli.contest import of_contest
    from vlm_analysis.cli.costed import of_costs
    from vlm_analysis.cli.skipping import of_scan
    from vlm_analysis.cli.width import of_width
    from vlm_analysis.edits.files import EDIT, MASK, open_edit
    from vlm_analysis.evaluation import cost, evaluation, scanfile
    from vlm_analysis.recording import probefile, recording
    from vlm_analysis.recovery import ledger
    from vlm_analysis.selection.compared import comparison
    from vlm_analysis.selection.contest import file as contestfile
    from vlm_analysis.selection.width import file as widthfile

    return {
        **dict.fromkeys((MASK, EDIT), lambda path: results.of_mask(open_edit(path), None)),
        recording.FORM.kinds[0]: lambda path: results.of_recording(recording.open_recording(path), None),
        comparison.FORM.kinds[0]: lambda path: results.of_comparison(comparison.open_comparison(path), None),
        evaluation.FORM.kinds[0]: lambda path: results.of_evaluation(evaluation.open_evaluation(path), None, None),
        scanfile.FORM.kinds[0]: lambda path: of_scan(scanfile.open_scan(path), None),
        widthfile.FORM.kinds[0]: lambda path: of_width(widthfile.open_width_scores(path), None),
        probefile.FORM.kinds[0]: lambda path: of_probe(probefile.open_answer_probe(path), None),
        contestfile.FORM.kinds[0]: lambda path: of_contest(contestfile.open_contest(path), None),
        ledger.FORM.kinds[0]: lambda path: recovered.of_ledger(ledger.open_ledger(path), None),
        cost.FORM.kinds[0]: lambda path: of_costs([cost.open_cost(path)], [None]),
    }


def _of_prompts(path: Path, reading: Reading) -> Result:
    """Return the prompts of a file or folder, after saying what it was read as and what was left out."""
    from vlm_analysis.cli.lookup import tell_reading
    from vlm_analysis.cli.results import of_prompts
    from vlm_analysis.prompts.opening import open_prompts
    from vlm_analysis.prompts.sources import ARCHIVE_SUFFIXES
    from vlm_analysis.prompts.tables import TABLE_SUFFIXES

    try:
        prompts = open_prompts(path, **reading)
    except PromptError as error:
        if reading:
            raise
        if path.is_dir() or path.suffix.lower() in (*TABLE_SUFFIXES, *ARCHIVE_SUFFIXES):
            raise _none_of_these(path, "none of these", f"Read as prompts: {error}") from error
        raise _none_of_these(path, "another file, or a damaged one", "Name one of these.") from error
    tell_reading(short(path), prompts)
    return of_prompts(prompts, None)


def _of_foreign_mask(path: Path, out: Path | None) -> Result | None:
    """Return the mask that another tool wrote; None where the file is none."""
    from vlm_analysis.cli.maskfiles import tool_words
    from vlm_analysis.cli.results import of_mask

    try:
        mask = _foreign_mask(path, None)
    except NoLayerCountError:
        return _of_list(path, out)
    if mask is None:
        return None
    result, words = of_mask(mask, None), tool_words(mask, path)
    return replace(result, text=f"{result.text}\nRead as {words}.", data={**result.data, "read_as": words})


def _foreign_mask(path: Path, n_layers: int | None) -> Edit | None:
    """Return the mask of a file that another tool wrote; None where it holds something else, such as a table of prompts.

    Raises:
        MaskError: see `open_dialect`.
    """
    from vlm_analysis.cli.lookup import mask_bytes
    from vlm_analysis.edits.foreign.recognise import MOST_BYTES, foreign_mask
    from vlm_analysis.export.dialects import open_dialect
    from vlm_analysis.saved import parsed

    suffix = path.suffix.lower()
    if suffix in _MASKS_ALONE:
        return open_dialect(mask_bytes(path), path.name, n_layers=n_layers)
    if suffix not in (".json", ".csv") or path.stat().st_size > MOST_BYTES:
        return None
    data = mask_bytes(path)
    if suffix == ".csv":
        try:
            return open_dialect(data, path.name)
        except MaskError:
            return None
    try:
        content = parsed(text := data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    holds_rows = isinstance(content, list) and not any(isinstance(one, int | float) for one in content)
    return None if holds_rows else foreign_mask(text, path.name, n_layers)


def _of_list(path: Path, out: Path | None) -> Result:
    """Return the layers of a list that does not say how many the model has.

    Raises:
        WorkspaceError: it is to be written, or names the layers that stay.
    """
    import pandas as pd

    from vlm_analysis.cli.maskfiles import tool_words
    from vlm_analysis.model_info import MOST_LAYERS
    from vlm_analysis.words import layers as layer_words

    mask = _foreign_mask(path, MOST_LAYERS)
    assert mask is not None  # or there was no number to miss
    unknown = "does not say how many layers the model has"
    if out is not None or path.suffix.lower() in (".yaml", ".yml"):
        failed = "written" if out else "shown"
        raise WorkspaceError(
            f"'{short(path)}' cannot be {failed}: expected the number of layers of its model, got a file that {unknown}. Name a recording "
            f"of the model: strata mask RECORDING --drop {shlex.quote(str(path))}"
        )
    words = tool_words(mask, path)
    said = mask.provenance.get("said") or f"drops {layer_words(mask.dropped)}"
    text = f"{path.name}: {said}\nRead as {words}, which {unknown}."
    data = {"dropped": mask.dropped, "n_layers": None, "read_as": words}
    return Result("Mask", text, data, pd.DataFrame({"layer": mask.dropped}))


def _none_of_these(path: Path, got: str, advice: str) -> WorkspaceError:
    return WorkspaceError(f"'{short(path)}' cannot be shown: expected {SHOWN}, got {got}. {advice}")
