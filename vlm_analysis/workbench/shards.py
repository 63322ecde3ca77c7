"""Work that several machines share without talking to each other: each does a share of the batches, into a folder of its own.

The folder around them holds the prompts once. A share that was killed goes on where it stopped. `joining` makes one of finished shares.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import edit_content, edit_of
from vlm_analysis.errors import WorkspaceError, short
from vlm_analysis.files import advice_for
from vlm_analysis.guard.schema import fields, flag, listed, maybe, row, table, text, whole
from vlm_analysis.model_info import SCHEMA as MODEL, ModelInfo
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.recording import save_recording
from vlm_analysis.saved import Form
from vlm_analysis.workbench.damages import LEAVE_ONE_OUT, one_out
from vlm_analysis.workbench.kinds import keep_prompts_in, open_kept_prompts

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel

DONE, PROMPTS, ROWS, RECORDING, SCORES = "done.json", "prompts", "rows", "recording.npz", "scores"
MOST_SHARDS = 10_000
MOST_ROWS = 10_000_000
FORM = Form(
    ("shard",),
    1,
    "finished share of work",
    "Run this share again.",
    WorkspaceError,
    fields(
        {
            "shard": row(whole(1, MOST_SHARDS), whole(1, MOST_SHARDS)),
            "model": MODEL,
            "prompts": text(200),
            "recorded": row(flag, flag),
            "sweep": text(100),
            "edits": listed(table()),
            "answers": listed(row(listed(whole()), text(), text(100)), most=MOST_ROWS),
            "alternatives": listed(listed(whole(0, MOST_ROWS)), most=MOST_ROWS),
            "owners": listed(whole(0, MOST_ROWS), most=MOST_ROWS),
            "accepted": listed(row(whole(0, MOST_ROWS), listed(whole(0, MOST_ROWS)))),
            "refused": listed(row(whole(0, MOST_ROWS), text())),
            "belongs": maybe(table()),
        }
    ),
)


_LISTS = ("edits", "answers", "alternatives", "owners", "accepted", "refused")
NOTHING_SCORED: Mapping[str, Any] = {**{name: [] for name in _LISTS}, "belongs": None}


def shard_of(words: str) -> tuple[int, int]:
    """Return (i, n) of "i/n", the i-th of n shares, counted from 1.

    Raises:
        WorkspaceError: it says nothing of the kind.
    """
    match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", words.strip())
    number, n_shards = (int(part) for part in match.groups()) if match else (0, 0)
    if not _is_share((number, n_shards)):
        raise WorkspaceError(
            f"'{words[:40]}' is no share: expected i/n with i from 1 to n, as 2/8, and n up to {MOST_SHARDS:,}. Write it so."
        )
    return number, n_shards


def _is_share(shard: object) -> bool:
    return (
        isinstance(shard, Sequence)
        and len(shard) == 2
        and all(map(is_whole, shard))
        and 1 <= shard[0] <= shard[1] <= MOST_SHARDS
    )


def work_on_shard(
    loaded: LoadedModel,
    prompts: PromptSet,
    folder: Path | str,
    shard: tuple[int, int],
    *,
    edits: Sequence[Edit] = (),
    leave_one_out: bool = False,
    recorded: bool = False,
    attention: bool = False,
    on_progress: Progress = no_progress,
) -> Path:
    """Measure one share of some work and return its folder; what an earlier run of it measured is not run again.

    Args:
        prompts: all of them, for every share: batches are made of prompts of similar length.
        folder: of all shares; created if missing. One process at a time may work on a share.
        shard: (i, n), the i-th of n shares, counted from 1.
        edits: what is scored, beside the dense model.
        leave_one_out: whether the model without each layer is scored, in place of `edits`.
        recorded: whether the layers are recorded, with `attention` with attention maps too.

    Raises:
        WorkspaceError: there is no such share or nothing to measure, or the folder holds other work or cannot be written.
        StrataError: as `record` and `sweep` raise.
    """
    folder = Path(folder)
    if not _is_share(shard):
        raise WorkspaceError(
            f"There is no such share: expected (i, n) with i from 1 to n, as (2, 8), and n up to {MOST_SHARDS:,}, got "
            f"{short(repr(shard), 80)}. Name one."
        )
    check_work(edits, leave_one_out, recorded, attention)
    plan = _plan(loaded, edits, leave_one_out)
    prompts = _shared_prompts(prompts, folder)
    own = folder / f"shard-{shard[0]:05d}-of-{shard[1]:05d}"
    payload: dict[str, Any] = {
        "shard": list(shard),
        "model": asdict(loaded.info),
        "prompts": prompts.fingerprint,
        "recorded": [recorded, attention],
        "sweep": LEAVE_ONE_OUT if leave_one_out else "",
    }
    if (own / DONE).exists():
        _check_done(open_share(own), payload, plan)
        on_progress(1, 1, f"share {shard[0]} of {shard[1]} is done")
        return own
    if recorded:
        _record(loaded, prompts, attention, own, shard, on_progress)
    scored = _score(loaded, prompts, plan, own, shard, on_progress) if plan else {}
    FORM.save(own / DONE, {**NOTHING_SCORED, **payload, **scored})
    return own


def check_work(edits: Sequence[Any], leave_one_out: bool, recorded: bool, attention: bool = False) -> None:
    """Check that there is something to measure, and one kind of edits, and attention maps of a recording only.

    Raises:
        WorkspaceError: there is nothing, or there are two kinds, or attention maps without a recording.
    """
    if attention and not recorded:
        raise WorkspaceError(
            "Attention maps are of a recording: expected one to be made beside them, got none. Record too, or leave them out."
        )
    if not (edits or leave_one_out or recorded):
        raise WorkspaceError(
            "There is nothing to do: expected edits, each layer left out, or a recording, got none of them. Name what to measure."
        )
    if edits and leave_one_out:
        raise WorkspaceError(
            "The edits are of two kinds: expected some, or each layer left out, got both. Measure one after the other, each in a folder "
            "of its own."
        )


def _plan(loaded: LoadedModel, edits: Sequence[Edit], leave_one_out: bool) -> list[Edit]:
    """Return the different edits behind the dense one; none where nothing is scored."""
    chosen = one_out(loaded) if leave_one_out else list(edits)
    return list(dict.fromkeys([Edit(loaded.n_layers), *chosen])) if chosen else []


def _check_done(share: Share, payload: Mapping[str, Any], edits: Sequence[Edit]) -> None:
    """Check that a finished share is of this work.

    Raises:
        WorkspaceError: it is of another model, other prompts or other edits.
    """
    same = ("prompts", "recorded", "sweep")
    is_same = share.model.fingerprint == payload["model"]["fingerprint"] and share.edits == tuple(edits)
    if not is_same or any(share.content[name] != payload[name] for name in same):
        raise WorkspaceError(
            f"{share.folder} holds a finished share of other work: expected the same model, prompts and edits, got others. Name another "
            "folder."
        )


def _shared_prompts(prompts: PromptSet, folder: Path) -> PromptSet:
    """Return the prompts as the folder holds them; the first share writes them.

    Raises:
        WorkspaceError: it holds others, or cannot be written.
    """
    place, prompts = folder / PROMPTS, prompts.readable()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            part = folder / f".{PROMPTS}-{uuid4().hex}"
            keep_prompts_in(prompts, part)
            try:
                part.rename(place)
            except OSError:
                shutil.rmtree(part, ignore_errors=True)
                if not place.exists():
                    raise
    except OSError as error:
        raise WorkspaceError(
            f"The share cannot be written to {folder}: expected a folder to write, got {error.strerror or error}. {advice_for(error)}."
        ) from error
    shared = open_kept_prompts(place)
    if shared.fingerprint != prompts.fingerprint:
        raise WorkspaceError(
            f"{folder} holds shares on other prompts: expected these ({prompts.fingerprint[:8]}), got {shared.fingerprint[:8]}. Name "
            "another folder."
        )
    return shared


def _record(
    loaded: LoadedModel, prompts: PromptSet, attention: bool, own: Path, shard: tuple[int, int], progress: Progress
) -> None:
    from vlm_analysis.recording.record import record, share_of

    if (own / RECORDING).exists() or not share_of(prompts.readable().row_keys, shard):
        return
    recording = record(loaded, prompts, attention=attention, folder=own / ROWS, shard=shard, on_progress=progress)
    save_recording(recording, own / RECORDING)
    shutil.rmtree(own / ROWS, ignore_errors=True)


def _score(
    loaded: LoadedModel,
    prompts: PromptSet,
    edits: Sequence[Edit],
    own: Path,
    shard: tuple[int, int],
    progress: Progress,
) -> dict[str, Any]:
    """Score the edits on a share; return what tells whose rows these are."""
    from vlm_analysis.evaluation.run.evaluate import batch_for
    from vlm_analysis.evaluation.run.prepared import prepare
    from vlm_analysis.evaluation.run.sweep import check_edits, open_scores, score_header, sweep_prepared

    check_edits(edits, loaded.n_layers)
    work, batch = prepare(loaded, prompts, on_progress=progress), batch_for(loaded)
    store = open_scores(work, batch, own / SCORES)
    sweep_prepared(work, edits, None, store=store, batch_size=batch, shard=shard, on_progress=progress)
    return {
        "edits": [edit_content(edit) for edit in edits],
        "answers": [[list(one.ids), one.text, one.source] for one in work.answers],
        "alternatives": [list(rows) for rows in work.alternatives],
        "owners": list(work.owners),
        "accepted": [[index, list(rows)] for index, rows in work.accepted.items()],
        "refused": [[index, reason] for index, reason in work.refused.items()],
        "belongs": score_header(loaded, prompts, batch),
    }


@dataclass(frozen=True)
class Share:
    """A finished share: its folder, the i-th of n shares, and what its file says."""

    folder: Path
    number: int
    n_shards: int
    model: ModelInfo
    edits: tuple[Edit, ...]
    content: Mapping[str, Any] = field(repr=False)

    @property
    def same(self) -> str:
        """Return a text of all that is equal in the shares of one task."""
        apart = ("shard", "refused", "answers", "edits")
        rest = {name: value for name, value in self.content.items() if name not in apart}
        return json.dumps([rest, [edit.key for edit in self.edits]], sort_keys=True)


def open_share(folder: Path) -> Share:
    """Return the finished share in a folder.

    Raises:
        WorkspaceError: its file is missing or damaged.
    """

    def share(content: dict[str, Any]) -> Share:
        number, n_shards = content["shard"]
        edits = tuple(map(edit_of, content["edits"]))
        return Share(folder, number, n_shards, ModelInfo.from_json(content["model"]), edits, content)

    return FORM.open(folder / DONE, share)
