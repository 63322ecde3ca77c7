"""Saved files that someone edited by hand or made up: masks, evaluations, costs, recordings, comparisons, stories, and what
lies in an exported folder."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from vlm_analysis import (
    make_narrow,
    open_answer_probe,
    open_comparison,
    open_contest,
    open_cost,
    open_edit,
    open_evaluation,
    open_ledger,
    open_recording,
    open_scan,
    open_width_scores,
    probe_table,
    regimes,
    retention,
    score_tower,
    speedup,
)
from vlm_analysis.errors import EditError, MaskError
from vlm_analysis.evaluation.cost import cost_frame
from vlm_analysis.evaluation.scan import DENSE
from vlm_analysis.export.probe.compare import compare_replies
from vlm_analysis.export.probe.server import Reply
from vlm_analysis.export.probe.value import PROBE_FILE, PROBE_FOLDER, open_probe
from vlm_analysis.export.serving.rules import SERVING_FILE, open_serving
from vlm_analysis.export.story import open_story, story_sections
from vlm_analysis.prompts.places import parts_of
from vlm_analysis.recording.answerprobe import part_lines
from vlm_analysis.recovery.findings import headline, returned
from vlm_analysis.words import TOKEN_GROUPS

from . import bases
from .cases import Case, changed, texts


def use_edit(path: Path) -> None:
    edit = open_edit(path)
    assert edit.key
    assert edit.words()
    assert edit.steps
    edit.refuses(bases.MODEL)
    assert edit.chosen_on is not None


def use_evaluation(path: Path) -> None:
    evaluation = open_evaluation(path)
    assert len(evaluation.by_domain)
    retention(evaluation, bases.evaluation())
    evaluation.edit.refuses(evaluation.model)
    assert evaluation.model.locks.free is not None


def use_cost(path: Path) -> None:
    cost = open_cost(path)
    speedup(cost, "prefill")
    assert len(cost_frame([cost]))
    assert cost.expected_prefill_ms >= 0
    assert all(share <= 1 for share in (cost.expected_share("prefill"), cost.expected_share("decode")))
    assert cost.all_flops is None or min(cost.all_flops) >= 0
    if cost.model.layer_parameters:
        cost.edit.saved_parameters(cost.model)


def use_ledger(path: Path) -> None:
    ledger = open_ledger(path)
    assert len(ledger.table())
    assert headline(ledger)
    for row in ledger.recovered:
        assert len(returned(ledger, row)) == len(ledger.shared[0].by_prompt)


def use_contest(path: Path) -> None:
    contest = open_contest(path)
    assert len(contest.table())
    assert contest.verdict()
    assert contest.fresh_words()
    assert contest.best().cut.is_mask is not None


def use_recording(path: Path) -> None:
    recording = open_recording(path)
    for group in TOKEN_GROUPS:
        for domain in (None, *recording.domain_names):
            recording.layer_similarity(domain, group)
    recording.span_similarity()
    recording.linear_cka()
    recording.cross_modal_distance()
    assert recording.model.locks.reasons is not None
    if recording.model.tower is not None:
        with suppress(MaskError):  # one without such numbers is said in words
            assert len(score_tower(recording)) == recording.model.tower.n_layers
    if recording.maps is not None:
        recording.token_map(0)


def use_comparison(path: Path) -> None:
    comparison = open_comparison(path)
    assert len(comparison.parameters_left())
    assert comparison.evaluation(0).by_domain is not None
    regimes(comparison)


def use_scan(path: Path) -> None:
    scan = open_scan(path)
    assert len(scan.table())
    if scan.model.layer_parameters and scan.n_vision + scan.n_text > 0:
        assert scan.flops_share(scan.edit(DENSE, -1)) == 1
    repr(scan)


def use_answer_probe(path: Path) -> None:
    probe = open_answer_probe(path)
    assert len(probe_table(probe))
    assert len(part_lines(probe)) == len(probe.parts)


def use_story(path: Path) -> None:
    assert story_sections(open_story(path, bases.recording()))


def use_probe(path: Path) -> None:
    (path.parent / PROBE_FOLDER).mkdir(exist_ok=True)
    path.rename(path.parent / PROBE_FOLDER / PROBE_FILE)
    probe = open_probe(path.parent)
    assert probe.words()
    assert compare_replies(probe, [Reply(one.answer) for one in probe.prompts]).verdict == "equal"
    for one in probe.prompts:
        assert parts_of(one.question, len(one.images))


def use_serving(path: Path) -> None:
    path.rename(path.parent / SERVING_FILE)
    assert open_serving(path.parent)


def use_width(path: Path) -> None:
    scores = open_width_scores(path)
    assert scores.finding()
    assert scores.reasons("neurons") is not None
    repr(scores)
    with suppress(EditError):  # what cannot be chosen from such numbers is said in words
        assert make_narrow(scores, 0.2).words()


JSON_KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None]]] = {
    "mask": (bases.mask_file, use_edit),
    "edit of every kind": (bases.edit_file, use_edit),
    "evaluation": (bases.evaluation_file, use_evaluation),
    "cost": (bases.cost_file, use_cost),
    "cost of a vision encoder": (bases.tower_cost_file, use_cost),
    "ledger": (bases.ledger_file, use_ledger),
    "contest": (bases.contest_file, use_contest),
    "probe": (bases.probe_file, use_probe),
    "engines": (bases.serving_file, use_serving),
    "story": (lambda folder: _written(folder / "it.json", json.dumps(bases.story()).encode()), use_story),
}
NPZ_KINDS = {
    "recording": (bases.recording_file, use_recording),
    "recording of a vision encoder": (bases.tower_recording_file, use_recording),
    "comparison": (bases.comparison_file, use_comparison),
    "scan": (bases.scan_file, use_scan),
    "width": (bases.width_file, use_width),
    "answer probe": (bases.answer_probe_file, use_answer_probe),
}


def cases() -> Iterator[Case]:
    """Yield all cases of saved files."""
    for kind, (_, use) in JSON_KINDS.items():
        read = functools.partial(_of_folder, use, "it.json")
        for name, text in changed(json.loads(base_text(kind))):
            yield Case(kind, name, functools.partial(write, "it.json", text.encode()), read)
        for name, data in texts(base_text(kind)).items():
            yield Case(kind, name, functools.partial(write, "it.json", data), read, refused=True)
    for kind, (_, use) in NPZ_KINDS.items():
        read = functools.partial(_of_folder, use, "it.npz")
        meta = json.loads(_parts(kind)["meta.npy"][128:])
        for name, text in changed(meta):
            yield Case(kind, name, functools.partial(_write_parts, kind, {"meta.npy": _bytes_array(text)}), read)
        for name, data in texts(json.dumps(meta)).items():
            parts = {"meta.npy": _bytes_array(data)}
            yield Case(kind, f"meta {name}", functools.partial(_write_parts, kind, parts), read, refused=True)
        for name, parts in _arrays(kind):
            yield Case(kind, name, functools.partial(_write_parts, kind, parts), read, refused=True)
        yield from _zips(kind, read)
    yield from _impossible()


def _impossible() -> Iterator[Case]:
    """Yield files whose every part is sound, and whose parts do not fit together."""
    content = json.loads(base_text("evaluation"))
    row, other = content["by_prompt"][0], content["by_prompt"][1]
    for name, change in {
        "an id twice": {"by_prompt": [row, {**other, "id": row["id"]}]},
        "no prompts": {"by_prompt": []},
        "agreement of 7": {"by_prompt": [{**row, "token_agreement": 7}]},
        "negative likelihood": {"by_prompt": [{**row, "answer_nll": -3.0}]},
        "another number of layers": {"mask": {**content["mask"], "n_layers": 5, "model": None}},
        "a mask of a model of others": {
            "mask": {**content["mask"], "model": {**content["mask"]["model"], "n_layers": 9}}
        },
        "locks beyond the layers": {"model": {**content["model"], "locked": {"9": "why"}}},
        "parameters of other layers": {"model": {**content["model"], "layer_parameters": [1, 2]}},
    }.items():
        text = json.dumps({**content, **change}).encode()
        read = functools.partial(_of_folder, use_evaluation, "it.json")
        yield Case("evaluation", name, functools.partial(write, "it.json", text), read, refused=True)
    meta = json.loads(_parts("recording")["meta.npy"][128:])
    for name, change in {
        "an id twice": {"prompt_ids": ["a", "a", "b", "c"]},
        "fewer domains": {"domains": ["math"]},
        "no prompts": {"prompt_ids": [], "domains": []},
        "ten thousand layers": {"model": {**meta["model"], "n_layers": 10_000, "layer_parameters": []}},
        "a million layers": {"model": {**meta["model"], "n_layers": 1_000_000, "layer_parameters": []}},
        "a domain of activations twice": {"activations": [["math", 2], ["math", 2]]},
        "activations of more prompts": {"activations": [["math", 3], ["general", 2]]},
        "activations of no domain": {"activations": [["art", 1], ["general", 2]]},
    }.items():
        parts = {"meta.npy": _bytes_array(json.dumps({**meta, **change}))}
        read = functools.partial(_of_folder, use_recording, "it.npz")
        yield Case("recording", name, functools.partial(_write_parts, "recording", parts), read, refused=True)
    story = bases.story()
    for name, change in {
        "evaluations of two models": {"pruned": story["pruned"].replace("f" * 64, "e" * 64)},
        "evaluations of two prompt sets": {"pruned": story["pruned"].replace("p" * 64, "q" * 64)},
        "no dense evaluation": {"dense": story["pruned"]},
        "another mask": {"pruned": story["dense"]},
    }.items():
        text = json.dumps({**story, **change}).encode()
        read = functools.partial(_of_folder, use_story, "it.json")
        yield Case("story", name, functools.partial(write, "it.json", text), read, refused=True)


def _arrays(kind: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield other bytes in place of the arrays of an npz file."""
    of = kind.split(" of ")[0]
    name = {"recording": "cosine.npy", "width": "neurons.npy", "answer probe": "log_loss.npy"}.get(of, "answer_nll.npy")
    array = np.load(io.BytesIO(whole := _parts(kind)[name]))
    header, shape = bytearray(whole), str(array.shape).encode()
    yield "an array cut short", {name: whole[: len(whole) // 2]}
    yield "an empty array", {name: b""}
    yield "no header", {name: b"x" * 200}
    yield "another shape", {name: _array(array[:1])}
    yield "another type", {name: _array(array.astype("<f4"))}
    yield "complex numbers", {name: _array(array.astype(complex))}
    yield "text", {name: _array(array.astype(str))}
    yield "objects", {name: _array(array.astype(object))}
    yield "a header of many more rows", {name: bytes(header).replace(shape, b"(9" + shape[2:], 1)}
    yield "a header of code", {name: bytes(header).replace(b"'descr'", b"exit() ", 1)}
    other, value = {"recording": (name, 7.0), "answer probe": ("right.npy", 0.5)}.get(of, ("exact_match.npy", 0.5))
    yield "numbers out of range", {other: _array(np.full_like(array, value))}
    if of == "recording":
        keys = np.load(io.BytesIO(_parts(kind)["key.npy"]))
        yield "a key twice", {"key.npy": _array(np.repeat(keys[:1], len(keys)))}
        yield "a key that leads outside", {"key.npy": _array(np.array([b"../../../etc/passwd", *keys[1:]], keys.dtype))}
        yield "keys of other bytes", {"key.npy": _array(np.array([b"\xff\xfe", *keys[1:]], keys.dtype))}
        yield "negative counts", {"token_counts.npy": _array(np.full((4, 5), -1))}
        yield "other files", {"maps/evil.npz": b"x"}
    else:
        yield "an unknown array", {"evil.npy": _array(array)}


def _zips(kind: str, read: Callable[[Path], object]) -> Iterator[Case]:
    whole = b"".join(_parts(kind).values())
    for name, data in {
        "an empty file": b"",
        "no zip": b"x" * 1000,
        "an empty zip": b"PK\x05\x06" + bytes(18),
        "the middle of a zip": whole[: len(whole) // 2],
        "a directory without end": b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + b"\xfe\xff\xff\xff" + bytes(6),
    }.items():
        yield Case(kind, name, functools.partial(write, "it.npz", data), read, refused=True)
    yield Case(kind, "lzma", functools.partial(write_zip, kind, zipfile.ZIP_LZMA), read, refused=True)
    yield Case(kind, "claims of 60 GB", functools.partial(_write_claims, kind), read, refused=True)
    yield Case(
        kind,
        "a bomb of 300 MB that is not asked for",
        functools.partial(_write_bomb, kind),
        read,
        not kind.startswith("recording"),
    )


def _of_folder(use: Callable[[Path], None], name: str, folder: Path) -> None:
    use(folder / name)


def write(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@functools.cache
def base_text(kind: str) -> str:
    """Return the text of a whole file of this kind."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return JSON_KINDS[kind][0](Path(folder)).read_text("utf-8")


@functools.cache
def _parts(kind: str) -> dict[str, bytes]:
    """Return the files in a whole npz file of this kind, by name."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(NPZ_KINDS[kind][0](Path(folder))) as stored:
        return {name: stored.read(name) for name in stored.namelist()}


def _array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _bytes_array(text: str | bytes) -> bytes:
    return _array(np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8))


def _write_parts(kind: str, parts: dict[str, bytes], folder: Path) -> None:
    with zipfile.ZipFile(folder / "it.npz", "w") as archive:
        for name, data in {**_parts(kind), **parts}.items():
            archive.writestr(name, data)


def write_zip(kind: str, method: int, folder: Path) -> None:
    with zipfile.ZipFile(folder / "it.npz", "w", method) as archive:
        for name, data in _parts(kind).items():
            archive.writestr(name, data)


def _write_claims(kind: str, folder: Path) -> None:
    """Write a file whose directory says of one array that it unpacks to 60 GB."""
    with zipfile.ZipFile(folder / "it.npz", "w", allowZip64=True) as archive:
        for name, data in _parts(kind).items():
            archive.writestr(name, data)
        archive.infolist()[0].file_size = 60 << 30


def _write_bomb(kind: str, folder: Path) -> None:
    with zipfile.ZipFile(folder / "it.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in _parts(kind).items():
            archive.writestr(name, data)
        archive.writestr("unknown.npy", bytes(300_000_000))
