"""One whole of the finished shares of a task (see `shards`): what one process would have measured, with the same batches.

Scores and rows of recordings are equal to the last bit. Nothing runs, and the model is not loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_analysis.errors import EvaluationError, WorkspaceError
from vlm_analysis.evaluation.kept import kept_belongs, kept_scores
from vlm_analysis.evaluation.scores import ScoreStore
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.joining import join_recordings
from vlm_analysis.recording.recording import open_recording
from vlm_analysis.words import counted
from vlm_analysis.workbench.kinds import open_kept_prompts
from vlm_analysis.workbench.shards import DONE, PROMPTS, RECORDING, SCORES, Share, open_share
from vlm_analysis.workbench.shelf import (
    keep_dense,
    keep_evaluation,
    keep_prompts,
    keep_recording,
    keep_sweep,
    scores_at,
)
from vlm_analysis.workbench.workspace import Item, Workspace


def join_shards(folder: Path | str, workspace: Workspace, name: str = "") -> list[Item]:
    """Join the finished shares of a folder in the workspace: prompts, recording, scores and evaluations; the model is not loaded.

    Returns the Items of the recording and of the evaluations, where there are such. Scores are found by later sweeps and comparisons too.

    Raises:
        WorkspaceError: a share is missing, or they are of different tasks.
        StrataError: a file is damaged.
    """
    folder, shelf = Path(folder), workspace
    shares = _shares(folder)
    first = shares[0]
    prompts = open_kept_prompts(folder / PROMPTS)
    if prompts.fingerprint != first.content["prompts"]:
        raise WorkspaceError(
            f"The prompts in {folder} are others than the shares are of. Run the shares again, in another folder."
        )
    item = keep_prompts(shelf, prompts, name or folder.resolve().name, any_name=not name)
    items = []
    if first.content["recorded"][0]:
        files = [share.folder / RECORDING for share in shares]
        recording = join_recordings([open_recording(file) for file in files if file.exists()], prompts)
        items.append(keep_recording(shelf, recording, f"{first.model.name} on {item.name}"))
    if first.edits:
        items.append(_join_scores(shares, prompts, item, shelf))
    return items


def _shares(folder: Path) -> list[Share]:
    """Return the finished shares of a folder by number, all of them and of one task."""
    shares = [open_share(path.parent) for path in sorted(folder.glob(f"shard-*/{DONE}"))]
    if not shares:
        raise WorkspaceError(
            f"There is nothing to join in {folder}: expected finished shares, got none. Run `strata work --shard 1/1 --out {folder}` "
            "first, or name the folder of the shares."
        )
    n_shards = shares[0].n_shards
    folders = {share.number: share.folder.name for share in shares}
    if again := [share for share in shares if folders[share.number] != share.folder.name]:
        names = f"{again[0].folder.name} and {folders[again[0].number]}"
        raise WorkspaceError(
            f"A share in {folder} is there twice: expected one folder for share {again[0].number} of {again[0].n_shards}, got {names}. "
            "Take one of them away."
        )
    missing = sorted({*range(1, n_shards + 1)} - {share.number for share in shares})
    if missing or {share.n_shards for share in shares} != {n_shards}:
        got = f"without {', '.join(map(str, missing[:10]))}" if missing else "shares of other numbers too"
        raise WorkspaceError(
            f"The shares in {folder} are not whole: expected 1 to {n_shards}, got {len(shares)}, {got}. Run those again; what they have "
            "measured is kept."
        )
    for share in shares:
        if share.same != shares[0].same:
            raise WorkspaceError(
                f"The shares in {folder} are of different work: expected the same model, prompts, edits and versions in each, got others "
                f"in share {share.number}. Run it again in another folder."
            )
    return sorted(shares, key=lambda share: share.number)


def _join_scores(shares: Sequence[Share], prompts: PromptSet, item: Item, shelf: Workspace) -> Item:
    """Put the rows of all shares into the workspace's scores, and save the evaluations they make."""
    from vlm_analysis.evaluation.run.evaluate import evaluation_of
    from vlm_analysis.evaluation.run.prepared import Answer, Answered

    content, edits = shares[0].content, shares[0].edits
    refused = {index: reason for share in shares for index, reason in share.content["refused"]}
    rows = [share.content["answers"] for share in shares]
    n_prompts = len(prompts.readable())
    if len({*map(len, rows)}) > 1 or any(index >= n_prompts for index in (*refused, *content["owners"])):
        raise WorkspaceError(
            "The shares are damaged: expected the same rows of the same prompts, got others. Run them again."
        )
    answers = [next((one for one in same if one[0]), same[0]) for same in zip(*rows, strict=True)]
    accepted = {index: tuple(rows) for index, rows in content["accepted"]}
    work = Answered(
        shares[0].model,
        prompts.readable(),
        tuple(Answer(tuple(ids), words, source) for ids, words, source in answers),
        tuple(map(tuple, content["alternatives"])),
        tuple(content["owners"]),
        refused,
        accepted,
    )
    if not len(work.prompts) <= len(work.owners) == len(work.answers):
        raise WorkspaceError("The shares are damaged: expected a row for each prompt, got fewer. Run them again.")
    belongs = content["belongs"] or {}
    n_layers, n_rows = shares[0].model.n_layers, len(work.answers)
    store = ScoreStore(n_layers, n_rows, scores_at(shelf, belongs), belongs, accepted)
    for share in shares:
        _check_header(share, {"rows": n_rows, "layers": n_layers, **belongs})
        for edit in edits:
            scores = kept_scores(share.folder / SCORES, edit.key)
            store.put(edit.key, list(scores), list(scores.values()))
    for edit in edits:
        if store.lacks(edit.key, work.scored(range(n_rows))):
            raise EvaluationError(
                f"The scores of an edit that {edit.words()} are not whole: expected {n_rows} rows, got fewer. Run the shares again."
            )
    evaluations = [evaluation_of(work, edit, store.of(edit.key)) for edit in edits]
    keep_dense(shelf, evaluations[0], item.name)
    if content["sweep"]:
        return keep_sweep(shelf, evaluations, f"each layer left out on {item.name}", sweep=content["sweep"])
    if len(evaluations) == 2:
        return keep_evaluation(shelf, evaluations[1], f"{edits[1].name or 'unnamed mask'} on {item.name}")
    return keep_sweep(shelf, evaluations, f"{counted(len(edits) - 1, 'edit')} on {item.name}")


def _check_header(share: Share, expected: Mapping[str, Any]) -> None:
    header = kept_belongs(share.folder / SCORES)
    if {name: header.get(name) for name in expected} != dict(expected):
        raise EvaluationError(
            f"The scores of share {share.number} belong to something else: expected those of its own task, got others. Run it again."
        )
