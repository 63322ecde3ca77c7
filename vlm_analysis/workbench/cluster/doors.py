"""The doors through which work goes to a cluster: rows of a recording, scores of edits, and scores of a scan.

Parts are whole batches, which are the same as on one machine; what comes back is written here, by this process alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.assets import BUNDLED_MODELS
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import ClusterError
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recording.extending import settings_of, task_of
from vlm_analysis.recording.maps import copy_maps
from vlm_analysis.recording.pooled import is_pooled
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.rows import RowStore, opened_rows
from vlm_analysis.words import counted
from vlm_analysis.workbench.cluster.crew import Crew, Message, Part, words
from vlm_analysis.workbench.cluster.messages import packed_edits, packed_prompts, scores_in, unpacked
from vlm_analysis.workbench.cluster.worker import ANSWER
from vlm_analysis.workbench.slot import ModelSlot

if TYPE_CHECKING:
    from vlm_analysis.evaluation.run.prepared import Prepared
    from vlm_analysis.evaluation.run.scan import ScanWork
    from vlm_analysis.evaluation.scanparts import Scores
    from vlm_analysis.evaluation.scores import ScoreStore
    from vlm_analysis.models.load import LoadedModel

FEW = 4  # prompts of a part where each runs alone, so that little is lost and progress is seen

Model = tuple[str, Mapping[str, Any]]


def model_of(slot: ModelSlot) -> Model:
    """Return where the machines of a cluster load the model of a slot from, and how: as it was loaded here.

    Raises:
        ClusterError: it is spread over devices, and a worker has one.
    """
    source, options = slot.arguments
    if options.get("device_map"):
        raise ClusterError(
            "A cluster cannot run this model: expected one that fits on a device, got one that is spread over several. Load it without "
            "device_map, or measure here."
        )
    loaded = slot.loaded
    if source not in BUNDLED_MODELS and Path(source).is_dir():
        source = str(Path(source).resolve())
    same = {"device": loaded.device.type, "max_vision_tokens": loaded.max_vision_tokens}
    return source, {**options, **same, **({} if loaded.quantiser else {"dtype": loaded.dtype})}


def chunks_of(keyed: Sequence[tuple[str, Prompt]], batch_size: int, chunk: int) -> list[list[tuple[str, Prompt]]]:
    """Return the parts of a recording: of `chunk` prompts, whose batches are those of one machine; of fewer where each runs alone."""
    size = chunk if batch_size > 1 else min(FEW, chunk)
    return [list(keyed[first : first + size]) for first in range(0, len(keyed), size)]


def record_rows_on(
    crew: Crew,
    loaded: LoadedModel,
    model: Model,
    prompts: PromptSet,
    folder: Path,
    options: Mapping[str, Any],
    known: Recording | None,
    progress: Progress,
) -> None:
    """Have the rows of a recording measured that are missing in a folder (see `record`, with the same options) and `known`.

    Prompts that the model refuses have no row.
    """
    from vlm_analysis.recording.record import CHUNK

    prompts = prompts.readable()
    settings = settings_of(
        loaded, options["batch_size"], full=True, **{n: options[n] for n in ("attention", "token_maps")}
    )
    belongs = {"model": loaded.fingerprint, "settings": settings}
    how = {"settings": settings, "pools": is_pooled(map(task_of, prompts), settings)}
    total = len(prompts)

    def wait(owner: object) -> None:
        progress(0, total, f"waiting for {owner or 'another process'}, which records the same prompts")

    with opened_rows(folder, belongs, loaded.n_layers, wait, loaded.n_tower) as store:
        present = store.keys | (frozenset(known.keys) if known else frozenset())
        missing = [(key, one) for key, one in zip(prompts.row_keys, prompts, strict=True) if key not in present]
        done = total - len(missing)

        def take(chunk: Sequence[tuple[str, Prompt]], answer: Mapping[str, Any], data: bytes) -> None:
            nonlocal done
            done += _take_rows(store, [key for key, _ in chunk], belongs, loaded, data)

        def ask(chunk: Sequence[tuple[str, Prompt]]) -> Message:
            return "record", (packed_prompts({"keys": [key for key, _ in chunk], **how}, [one for _, one in chunk]),)

        parts = [
            Part(partial(ask, one), partial(take, one)) for one in chunks_of(missing, options["batch_size"], CHUNK)
        ]
        crew.hand_out(loaded, model, parts, lambda: progress(done, total, f"recording, {words(crew)}"))


def _take_rows(
    store: RowStore, keys: Sequence[str], belongs: Mapping[str, Any], loaded: LoadedModel, data: bytes
) -> int:
    """Add the rows of a part to those of the recording, after the checks that every folder of rows gets; returns how many prompts are done.

    A worker that dies after its answer has its part run again: rows that are here count once.
    """
    with tempfile.TemporaryDirectory(prefix="strata-") as name:
        folder = Path(name)
        unpacked(data, ANSWER, folder)
        part = RowStore(folder, belongs, loaded.n_layers, n_tower=loaded.n_tower)
        measured = [key for key in keys if key in part.keys]
        if len(measured) != len(part.keys):
            raise ClusterError(
                "A part of the recording is another's: expected rows of its prompts, got others. Run it again."
            )
        if not measured or store.keys & set(measured):
            return 0 if measured else len(keys)
        if belongs["settings"]["token_maps"]:
            copy_maps(folder, store.folder, measured)
        store.append(part.assembled(measured), part.activations, part.pooled)
        return len(keys)


def score_on(
    crew: Crew,
    model: Model,
    work: Prepared,
    edits: Sequence[Edit],
    *,
    store: ScoreStore,
    batch_size: int,
    on_batch: Callable[[ScoreStore], None] | None,
    progress: Progress,
) -> None:
    """Have the missing scores of edits on prepared prompts measured into `store` (see `sweep_prepared`)."""
    from vlm_analysis.evaluation.run.sharing import ordered

    different = ordered(edits)
    batches = list(work.batches(batch_size))
    missing = {number: [one for one in different if store.lacks(one.key, rows)] for number, rows in enumerate(batches)}
    missing = {number: here for number, here in missing.items() if here}
    done, total = 0, sum(map(len, missing.values()))
    if not missing:
        progress(total, total, "evaluated")
        return
    needed = {edit.key: edit for here in missing.values() for edit in here}
    sent = crew.shared(packed_edits(list(needed.values())))

    owners: dict[int, list[int]] = {}

    def ask(number: int) -> Message | None:
        nonlocal done
        rows = work.scored(batches[number])
        owners[number] = _owners_of(work, rows)
        left = [edit.key for edit in missing[number] if rows and store.lacks(edit.key, rows)]
        done += 0 if left else len(missing[number])
        return ("score", (_batch_message(work, rows, owners[number], left), sent)) if left else None

    def take(number: int, answer: Mapping[str, Any], _: bytes) -> None:
        nonlocal done
        if "edit" in answer:
            _take_scores(store, answer, needed, batches[number])
            done = min(total, done + 1)
        else:
            _set_aside(work, owners[number], answer)
            if on_batch is not None:
                on_batch(store)

    parts = [Part(partial(ask, number), partial(take, number)) for number in missing]
    how_many = f"{counted(len(parts), 'part')}, {counted(len(needed), 'edit')}"
    crew.hand_out(work.loaded, model, parts, lambda: progress(done, total, f"{how_many}, {words(crew)}"))
    work.take_over(None)
    progress(total, total, "evaluated")


def _owners_of(work: Prepared, rows: Sequence[int]) -> list[int]:
    """Return the prompts of the rows of a batch by their index, each once, as they are sent."""
    return list(dict.fromkeys(work.owners[row] for row in sorted(rows)))


def _set_aside(work: Prepared, owners: Sequence[int], answer: Mapping[str, Any]) -> None:
    """Set aside the prompts of a batch that the model refused there."""
    for index, reason in answer["refused"]:
        work.refused.setdefault(owners[index], reason)


def _batch_message(work: Prepared, rows: Sequence[int], owners: list[int], edits: Sequence[str]) -> bytes:
    """Return the rows of one batch in its order, with their prompts, for `Worker.score`."""
    keys = work.prompts.row_keys
    content = {
        "keys": [keys[owner] for owner in owners],
        "owners": [owners.index(work.owners[row]) for row in rows],
        "rows": list(rows),
        "ids": [list(work.answers[row].ids) for row in rows],
        "edits": list(edits),
    }
    return packed_prompts(content, [work.prompts[owner] for owner in owners])


def _take_scores(store: ScoreStore, answer: Mapping[str, Any], asked: Mapping[str, Edit], rows: Sequence[int]) -> None:
    from vlm_analysis.evaluation.scores import NUMBERS

    scores = scores_in(answer["scores"], NUMBERS, rows)
    store.put(_key_of(answer, asked), list(scores), list(scores.values()))


def _key_of(answer: Mapping[str, Any], asked: Container[str]) -> str:
    key: str = answer["edit"]
    if key not in asked:
        raise ClusterError("A part of the scores is another's: expected those of its edits, got others. Run it again.")
    return key


def scan_on(crew: Crew, model: Model, ready: ScanWork, progress: Progress) -> Scores:
    """Have the parts of a scan measured that are not kept yet; return the scores of all (see `run_scan`)."""
    from vlm_analysis.evaluation.run.scan import add_scores
    from vlm_analysis.evaluation.scan import NUMBERS_OF_SCAN

    work, keys = ready.work, [edit.key for edit in ready.plan]
    found: dict[int, Scores] = {number: ready.known(number) or {} for number in range(len(ready.parts))}
    missing = [number for number, scores in found.items() if not scores]
    done, total = len(keys) * (len(found) - len(missing)), len(keys) * len(found)
    sent = crew.shared(packed_edits(ready.plan)) if missing else None
    owners = dict[int, list[int]]()
    whole = set[int]()  # parts of which all came: a worker may die after its answers

    def ask(number: int) -> Message | None:
        if number in whole:
            return None
        found[number] = {}  # of a worker that died
        rows = work.scored(ready.parts[number])
        owners[number] = _owners_of(work, rows)
        return ("scan", (_batch_message(work, rows, owners[number], keys), sent)) if rows else None

    def take(number: int, answer: Mapping[str, Any], _: bytes) -> None:
        if "edit" in answer:
            scores = scores_in(answer["scanned"], NUMBERS_OF_SCAN, ready.parts[number])
            found[number][_key_of(answer, keys)] = scores
        else:
            _set_aside(work, owners[number], answer)
            ready.keep(number, found[number])
            whole.add(number)

    def told() -> None:
        here = sum(len(found[number]) for number in missing)
        progress(done + here, total, f"{how_many}, {words(crew)}")

    how_many = f"{counted(len(found), 'part')}, {counted(len(keys), 'edit')}"
    crew.hand_out(work.loaded, model, [Part(partial(ask, one), partial(take, one)) for one in missing], told)
    work.take_over(None)
    progress(total, total, "scanned")
    scores: Scores = {}
    for number in range(len(ready.parts)):
        add_scores(scores, found[number])
    return scores
