"""What runs on a cluster: a process that loads the model once and measures part after part of the work. It knows nothing of Ray.

What goes in and comes out is bytes (see `messages`).
"""

from __future__ import annotations

import hashlib
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import PromptError, StrataError
from vlm_analysis.guard.schema import fields, flag, listed, maybe, row, table, text, whole
from vlm_analysis.workbench.cluster.messages import edits_in, packed, prompts_in, score_lines, unpacked

if TYPE_CHECKING:
    from vlm_analysis.evaluation.run.prepared import Prepared
    from vlm_analysis.evaluation.run.sharing import SharedRunner
    from vlm_analysis.models.load import LoadedModel

NOTHING = fields({})
MODEL = fields({"source": text(10_000), "options": table(), "threads": whole(1)})
KEYS = listed(text(32, 32), 1)
RECORDING = fields({"keys": KEYS, "settings": table(), "pools": flag})
BATCH = fields(
    {"keys": KEYS, "owners": listed(whole(), 1), "rows": listed(whole(), 1), "ids": listed(listed(whole()), 1)}
    | {"edits": listed(text(200), 1)}
)
FAILED = {"error": maybe(text()), "bug": maybe(text())}
SCORE, SCANNED = (row(whole(), flag, *[text(40)] * number) for number in (3, 6))
"""A row, whether it is matched exactly, and the numbers of an evaluation, or of a scan, as texts: JSON has no NaN."""
ANSWER = fields(
    {},
    FAILED
    | {"fingerprint": text(200), "versions": table(text(100)), "refused": listed(row(whole(), text()))}
    | {"set_aside": table(text()), "edit": text(200), "scores": listed(SCORE), "scanned": listed(SCANNED)},
)

Told = Callable[..., Iterator[bytes]]


def told(work: Told) -> Told:
    """Return the work with its failures as a message in place of an exception, which would be unpickled on its way."""

    @wraps(work)
    def guarded(*arguments: Any) -> Iterator[bytes]:
        try:
            for answer in work(*arguments):  # noqa: UP028 - Ray sends values into generators
                yield answer
        except StrataError as error:
            yield packed({"error": str(error)})
        except Exception:
            yield packed({"bug": traceback.format_exc()[-20_000:]})

    return guarded


def versions() -> dict[str, str]:
    """Return what has to be the same on all machines for the numbers to be."""
    import torch
    import transformers

    from vlm_analysis import __version__

    return {"strata": __version__, "torch": torch.__version__, "transformers": transformers.__version__}


class Worker:
    """A process of a cluster that measures parts of the work on one model."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self._runner: SharedRunner | None = None
        self._edits: tuple[str, dict[str, Edit]] = ("", {})
        self._files: Any = None

    @told
    def load(self, message: bytes) -> Iterator[bytes]:
        """Load the model; answers with its fingerprint and the versions of this machine."""
        import torch

        from vlm_analysis.models.load import load_model

        asked = unpacked(message, MODEL)
        torch.set_num_threads(asked["threads"])
        self._loaded = load_model(asked["source"], **asked["options"])
        yield packed({"fingerprint": self._loaded.fingerprint, "versions": versions()})

    @told
    def record(self, message: bytes) -> Iterator[bytes]:
        """Record some prompts; answers with the files of their rows, and the prompts that the model refuses."""
        from vlm_analysis.recording.record import record_rows

        assert self._loaded is not None
        with tempfile.TemporaryDirectory(prefix="strata-") as name:
            asked, rows = unpacked(message, RECORDING, Path(name) / "prompts"), Path(name) / "rows"
            keyed = list(zip(asked["keys"], prompts_in(Path(name) / "prompts", asked["keys"]), strict=True))
            how: dict[str, Any] = {"settings": asked["settings"], "pools": asked["pools"]}
            refused = record_rows(self._loaded, keyed, rows, **how)
            yield packed({"set_aside": refused}, rows)

    @told
    def score(self, message: bytes, edits: bytes) -> Iterator[bytes]:
        """Score edits on one batch; answers with the scores of each as they come, then with the prompts that the model refuses."""
        from vlm_analysis.evaluation.run.sweep import run_part

        with self._batch(message, edits) as (work, runner, rows, chosen):
            sent, places = _Sent(rows), list(range(len(rows)))
            for _ in run_part(work, runner, places, chosen, None, sent):
                for answer in sent.taken():  # noqa: UP028 - as above
                    yield answer
        yield _refused(work)

    @told
    def scan(self, message: bytes, edits: bytes) -> Iterator[bytes]:
        """Score the edits of a scan on one batch; answers as `score` does."""
        from vlm_analysis.evaluation.run.scan import run_scan_part
        from vlm_analysis.evaluation.scan import NUMBERS_OF_SCAN

        with self._batch(message, edits) as (work, runner, rows, chosen):
            for key, scores in run_scan_part(work, runner, range(len(rows)), chosen):
                found = {rows[place]: one for place, one in scores.items()}
                yield packed({"edit": key, "scanned": score_lines(found, NUMBERS_OF_SCAN)})
        yield _refused(work)

    @contextmanager
    def _batch(
        self, message: bytes, edits: bytes
    ) -> Iterator[tuple[Prepared, SharedRunner, Sequence[int], list[Edit]]]:
        """Yield the rows of a message ready to be scored, what runs them, the numbers that they have where they come from, and the edits.

        That no prompt is left is no error: other batches may have some.
        """
        from vlm_analysis.evaluation.run.sharing import SharedRunner

        assert self._loaded is not None
        self._runner = self._runner or SharedRunner(self._loaded)
        known = self._opened(edits)
        with tempfile.TemporaryDirectory(prefix="strata-") as name:
            asked = unpacked(message, BATCH, Path(name))
            chosen = [known[key] for key in asked["edits"]]
            work = _prepared(self._loaded, asked, Path(name))
            try:
                yield work, self._runner, asked["rows"], chosen
            except PromptError:
                if len(work.refused) < len(work.prompts):
                    raise

    def _opened(self, edits: bytes) -> Mapping[str, Edit]:
        """Return the edits of a message by their keys; the last ones are kept, with the files of what they learnt."""
        content = hashlib.sha256(edits).hexdigest()
        if content != self._edits[0]:
            if self._files is not None:
                self._files.__exit__(None, None, None)
            self._files = edits_in(edits, NOTHING)
            self._edits = content, {edit.key: edit for edit in self._files.__enter__()}
        return self._edits[1]


class _Sent:
    """The scores of a batch on their way out (see `sweep.Kept`): an edit that was scored on some rows lacks none of fewer."""

    def __init__(self, rows: Sequence[int]) -> None:
        self._rows, self._done, self._out = rows, set[str](), list[bytes]()

    def lacks(self, key: str, rows: Sequence[int]) -> bool:
        return key not in self._done

    def put(self, key: str, rows: Sequence[int], scores: Sequence[Mapping[str, Any]]) -> None:
        from vlm_analysis.evaluation.scores import NUMBERS

        found = {self._rows[place]: score for place, score in zip(rows, scores, strict=True)}
        self._done.add(key)
        self._out.append(packed({"edit": key, "scores": score_lines(found, NUMBERS)}))

    def taken(self) -> list[bytes]:
        """Return what is to be sent, once."""
        out, self._out = self._out, []
        return out


def _refused(work: Prepared) -> bytes:
    return packed({"refused": [[index, reason] for index, reason in work.refused.items()]})


def _prepared(loaded: LoadedModel, asked: Mapping[str, Any], folder: Path) -> Prepared:
    """Return the rows of a batch, ready to be scored: the answers were tokenized where the work was planned."""
    from vlm_analysis.evaluation.run.prepared import GIVEN_ANSWER, MAX_ENCODED_BYTES, Answer, Prepared
    from vlm_analysis.models.inputs import EncodedPrompts
    from vlm_analysis.prompts.prompts import PromptSet

    prompts = PromptSet(prompts_in(folder, asked["keys"]))
    pairs = [(prompts[owner], tuple(ids)) for owner, ids in zip(asked["owners"], asked["ids"], strict=True)]
    encoded = EncodedPrompts(loaded, pairs, max_bytes=MAX_ENCODED_BYTES)
    refused = {asked["owners"][place]: reason for place, reason in encoded.refused.items()}
    answers = tuple(Answer(ids, "", GIVEN_ANSWER) for _, ids in pairs)
    rows = answers, ((),) * len(prompts), tuple(asked["owners"]), refused
    return Prepared(loaded.info, prompts, *rows, loaded=loaded, encoded=encoded)
