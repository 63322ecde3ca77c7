"""Workspaces that someone edited by hand: sidecars, files and folders that are not what their names say, and half-done work."""

from __future__ import annotations

import functools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from vlm_analysis.errors import StrataError, WorkspaceError
from vlm_analysis.evaluation.scores import FILE, TABLES, ScoreStore
from vlm_analysis.files import owner_of
from vlm_analysis.recording.rows import HEADER, ROWS, SUMS, RowStore
from vlm_analysis.workbench.comparisons import unfinished
from vlm_analysis.workbench.details import count_domains, edit_key, is_dense, is_mask
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, keep_recording, open_item
from vlm_analysis.workbench.workspace import KINDS, Workspace

from . import bases
from .cases import Case, changed, texts

SPECIAL: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "an endless file": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a sparse file of 4 GB": lambda path: (path.touch(), os.truncate(path, 4 << 30)),
    "a file without permission": lambda path: (path.write_text("{}"), path.chmod(0)),
}


def list_all(folder: Path) -> None:
    """Do what every page does with a workspace, open everything, then delete all that is damaged."""
    home = Workspace(folder / "home")
    for kind in KINDS:
        for item in home.items(kind):
            edit_key(item.details), is_dense(item.details), is_mask(item.details), count_domains(item.details)
            assert item.created[:16]
            try:
                open_item(item)
            except StrataError:
                home.delete(item)
    for one in home.damaged():
        assert len(one.reason) < 2000
        home.discard(one)
    assert home.damaged() == []
    list(unfinished(home))


def cases() -> Iterator[Case]:
    """Yield all cases of workspaces, row stores and score stores."""
    yield from _sidecars()
    yield from _files()
    yield from _questions()
    yield from _row_stores()
    yield from _score_stores()
    for name, what in SPECIAL.items():
        yield Case("lock", name, functools.partial(_made, what, "owner.lock"), lambda folder: owner_of(folder) and None)


def _home(folder: Path) -> Workspace:
    home = Workspace(folder / "home")
    keep_mask(home, bases.evaluation((1,)).edit)
    return home


def _sidecar(folder: Path) -> Path:
    (item,) = _home(folder).items("masks")
    return item.path.parent / f"{item.id}.item.json"


def _sidecars() -> Iterator[Case]:
    details = {
        "edit": "0" * 32,
        "what": "drops layer 1",
        "dropped": [1],
        "n_layers": 4,
        "domains": ["a"],
        "n_domains": 1,
        "n": 3,
    }
    content = {
        "schema_version": 1,
        "kind": "masks",
        "id": "20260101-000000-00000000",
        "name": "mine",
        "created": "2026-01-01T00:00:00+00:00",
        "model": "f" * 64,
        "prompts": None,
        "model_name": "toy",
        "details": details,
    }

    def make(data: bytes, folder: Path) -> None:
        bases.mask_file((folder / "home" / "masks" / content["id"]).with_suffix("").parent)
        (folder / "home" / "masks" / "it.json").rename(folder / "home" / "masks" / f"{content['id']}.json")
        (folder / "home" / "masks" / f"{content['id']}.item.json").write_bytes(data)

    for name, text in changed(content):
        yield Case("sidecar", name, functools.partial(make, text.encode()), list_all)
    for name, data in texts(json.dumps(content)).items():
        yield Case("sidecar", name, functools.partial(make, data), list_all)
    for layers in (0, 10_001, 10**6, 10**9, -1):
        other = {**content, "details": {"n_layers": layers, "dropped": []}}
        yield Case("sidecar", f"{layers} layers", functools.partial(make, json.dumps(other).encode()), list_all)
    for name, what in SPECIAL.items():
        yield Case("sidecar", name, functools.partial(_replaced, _sidecar, what), list_all)
        for odd in ("..item.json", "x.item.json", ".item.json"):
            yield Case("sidecar", f"{odd} {name}", functools.partial(_made, what, f"home/masks/{odd}"), list_all)


def _files() -> Iterator[Case]:
    def recording(folder: Path) -> Path:
        return keep_recording(Workspace(folder / "home"), bases.recording(), "r").path

    def evaluation(folder: Path) -> Path:
        return keep_evaluation(Workspace(folder / "home"), bases.evaluation(), "e").path

    def others(folder: Path) -> None:
        """Put one item's file in place of another's."""
        first = evaluation(folder)
        second = keep_evaluation(Workspace(folder / "home"), bases.evaluation((1,)), "e").path
        second.replace(first)

    for kind, path_of in (("recording", recording), ("evaluation", evaluation)):
        for name, what in SPECIAL.items():
            yield Case("saved item", f"{kind} {name}", functools.partial(_replaced, path_of, what), list_all)
    yield Case("saved item", "another's file", others, list_all)
    for kind in KINDS:
        yield Case(
            "saved item",
            f"{kind} as a file",
            functools.partial(_made, lambda path: path.write_text("x"), f"home/{kind}"),
            _list,
        )


def _list(folder: Path) -> None:
    """List a workspace of which a folder of a kind is a file: told, and nothing else."""
    home = Workspace(folder / "home")
    assert [home.items(kind) for kind in KINDS] == [[]] * len(KINDS)
    (one,) = home.damaged()
    try:
        home.discard(one)
    except WorkspaceError:
        return
    raise AssertionError("a folder of a kind cannot be discarded")


def _questions() -> Iterator[Case]:
    question = {"choose": "a", "report": "b", "criteria": ["block-influence"], "strategies": ["first-k"], "most": 2}
    content = {"model": "f" * 64, "model_name": "toy", "name": "n", "question": question}
    where = "home/unfinished/0000000000000000/asked.json"
    for name, text in changed(content):
        yield Case(
            "unfinished", name, functools.partial(_made, functools.partial(_put, text.encode()), where), list_all
        )
    for name, data in texts(json.dumps(content)).items():
        yield Case("unfinished", name, functools.partial(_made, functools.partial(_put, data), where), list_all)
    for name, what in SPECIAL.items():
        yield Case("unfinished", name, functools.partial(_made, what, where), list_all)


def _row_stores() -> Iterator[Case]:
    def store(folder: Path) -> RowStore:
        return RowStore(folder / "rows", {"model": "m"}, bases.N_LAYERS)

    def whole(folder: Path) -> None:
        recording = bases.recording()
        store(folder).append(recording.rows, recording.activations)

    def read(folder: Path) -> None:
        opened = store(folder)
        if opened.keys:
            opened.assembled(sorted(opened.keys))

    for file_name in (HEADER, ROWS, SUMS):
        for name, what in SPECIAL.items():

            def make(folder: Path, what: Callable[[Path], object] = what, file_name: str = file_name) -> None:
                whole(folder)
                (folder / "rows" / file_name).unlink()
                what(folder / "rows" / file_name)

            yield Case("row store", f"{file_name} {name}", make, read)
        for name, data in texts('{"a": 0.5}').items():

            def put(folder: Path, data: bytes = data, file_name: str = file_name) -> None:
                whole(folder)
                (folder / "rows" / file_name).write_bytes(data)

            yield Case("row store", f"{file_name} {name}", put, read, refused=file_name != ROWS or len(data) < 4000)
    for name, keep in (("half", 0.5), ("nearly all", 0.99)):

        def cut(folder: Path, keep: float = keep) -> None:
            whole(folder)
            path = folder / "rows" / ROWS
            os.truncate(path, int(path.stat().st_size * keep))

        yield Case("row store", f"rows cut to {name}", cut, read, refused=True)


def _score_stores() -> Iterator[Case]:
    header = {"model": "m"}

    def whole(folder: Path) -> Path:
        scores = ScoreStore(bases.N_LAYERS, 3, folder, header)
        scores.put("0" * 32, [0, 1], [{"exact_match": True, "answer_nll": 0.5}] * 2)
        scores._base.close()
        return folder / FILE

    def read(folder: Path) -> None:
        scores = ScoreStore(bases.N_LAYERS, 3, folder, header)
        scores.of("0" * 32)
        scores._base.close()

    def sql(*lines: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            base = sqlite3.connect(whole(folder))
            for line in lines:
                base.execute(line)
            base.commit()
            base.close()

        return make

    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT '0', i, 1, 0.0, 0.0, 0.0, 0 FROM n"
    )
    for name, make in {
        "another number": sql("UPDATE scores SET answer_nll = 9.0"),
        "another row": sql("UPDATE scores SET row = row + 10"),
        "text": sql("UPDATE scores SET answer_nll = 'x'"),
        "no header": sql("DELETE FROM belongs"),
        "two headers": sql("INSERT INTO belongs VALUES ('x')"),
        "no table": sql("DROP TABLE scores"),
        "another table": sql("CREATE TABLE more (x)"),
        "a table with an index of its own": sql("CREATE TABLE more (x UNIQUE)"),
        "an endless view": sql("DROP TABLE scores", f"CREATE VIEW scores AS {endless}"),
        "an endless header": sql("DROP TABLE belongs", f"CREATE VIEW belongs AS SELECT '' AS header FROM ({endless})"),
        "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON scores BEGIN DELETE FROM scores; END"),
        "an index of code": sql("CREATE INDEX i ON scores (abs(row))"),
    }.items():
        yield Case("scores", name, make, read, refused=True)
    for name, what in SPECIAL.items():
        yield Case("scores", name, functools.partial(_replaced, whole, what), read)
    for name, data in texts("SQLite format 3\0" + "x" * 5000).items():
        yield Case("scores", name, functools.partial(_made, functools.partial(_put, data), FILE), read)
    assert len(TABLES) == 2


def _made(what: Callable[[Path], object], where: str, folder: Path) -> None:
    path = folder / where
    path.parent.mkdir(parents=True, exist_ok=True)
    what(path)


def _replaced(path_of: Callable[[Path], Path], what: Callable[[Path], object], folder: Path) -> None:
    path = path_of(folder)
    path.unlink()
    what(path)


def _put(data: bytes, path: Path) -> None:
    path.write_bytes(data)
