"""Replace a window of layers by one that is trained to do what they do (LLM-Streamline, arXiv:2403.19135)."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.replace import Replace
from vlm_analysis.edits.learnt import Tensors
from vlm_analysis.errors import EditError, NothingLearntError, short
from vlm_analysis.models.layers import find_decoder_path
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.memory import free_bytes, within_memory
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.recording.record import record
from vlm_analysis.recovery.finetune.activations import kept_bytes
from vlm_analysis.recovery.finetune.adapters import own_parameters
from vlm_analysis.recovery.finetune.finetune import COPIES, OnPartial
from vlm_analysis.recovery.finetune.trainer import Training, mean_of
from vlm_analysis.recovery.learning import Learning, check_trainable, prepare_to_learn
from vlm_analysis.recovery.memoryplan import plan_memory
from vlm_analysis.recovery.replacements import Replacing, replacing_of, windows_of
from vlm_analysis.recovery.standin import AnsweringStandIn, StandIn, distances, own_weights, taken, watch_window

REPLACE = "replace"  # the entry in an edit's provenance
Start = Callable[[str, torch.Tensor], torch.Tensor]


def replace_window(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    n: int,
    *,
    window: int | None = None,
    folder: Path | None = None,
    on_partial: OnPartial | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> Edit:
    """Return the Edit in which one trained layer stands for a window of n + 1, so that n layers go.

    The layer begins as the first of the window and learns to make of the stream what the window makes of it, by its squared distance to
    the dense model's stream behind the window; with `answer_epochs` it then learns the answers. All its weights are trained, all others
    stay. The squared distance is a mean over a prompt's tokens, the answer's among them, then over prompts (our choice). A share of the
    prompts, by groups, is held out, and the state that is best on them is kept. `provenance["replace"]` has the settings, the similarity
    of the window, the curves, and the held-out distance before and after. The dense model is not changed, whatever happens.

    Args:
        loaded: the dense model.
        prompts: of two groups or more. Those without an answer get the dense model's response.
        n: how many layers go, from 1 on.
        window: its first layer; by default the window with the largest mean cosine of the streams ahead of it and behind it on these
            prompts, of those without a protected or locked layer (our choice: the paper protects none).
        folder: where unfinished work is kept; the same call goes on from there.
        on_partial: called with the best edit so far whenever there is a better one.
        on_progress: called before each step; raising `Cancelled` in it stops the work.
        options: settings in place of the defaults, such as `epochs=4` (see `Replacing`).

    Raises:
        NothingLearntError: no state was nearer to the window than its first layer is alone.
        EditError: there is no such window, or it holds a layer that stays; the model cannot be trained, a setting is none, the prompts are
            of one group, memory is too small, or numbers stopped being finite.
        PromptError: the model can take none of the prompts.
    """
    settings = replacing_of(options)
    check_trainable(loaded, f"A window of {loaded.name} cannot be replaced")
    windows = windows_of(loaded.locks, n)
    if window is not None:
        windows = [_by_hand(loaded, n, window)]
    progress = on_progress or no_progress

    def work() -> Edit:
        chosen, similarity = windows[0], np.zeros(0)
        if window is None:
            similarity = similarity_of(loaded, prompts, n, progress)
            chosen = max(windows, key=lambda one: similarity[one[0]])  # the first of equal ones
        learning = prepare_to_learn(loaded, prompts, settings, progress)
        return Work(loaded, chosen, learning, settings, similarity).done(folder, on_partial, progress)

    return within_memory(
        work,
        lambda: EditError(
            f"A window of {loaded.name} could not be replaced: expected enough memory, got less than it took. Nothing was changed. Take "
            "fewer prompts at a time (`batch_size`), or shorter prompts."
        ),
    )


def similarity_of(loaded: LoadedModel, prompts: Sequence[Prompt], n: int, progress: Progress) -> np.ndarray:
    """Return the (n_layers − n,) mean cosine of the streams ahead of and behind each window of n + 1 layers, over all prompt tokens."""
    spans = record(loaded, prompts, full=False, on_progress=progress).span_similarity()
    return np.nan_to_num(np.diagonal(spans, n + 1), nan=-np.inf)


def _by_hand(loaded: LoadedModel, n: int, first: Any) -> tuple[int, ...]:
    """Return the window that begins with a layer.

    Raises:
        EditError: there is none, or it holds a layer that stays.
    """
    if not is_whole(first) or not 0 <= first < loaded.n_layers - n:
        raise EditError(
            f"There is no such window: expected a first layer in 0..{loaded.n_layers - n - 1}, got {short(repr(first), 80)}. Name one."
        )
    window = tuple(range(int(first), int(first) + n + 1))
    for layer, reason in loaded.locks.reasons.items():
        if layer in window:
            raise EditError(
                f"Layers {window[0]}-{window[-1]} cannot be replaced: expected no layer that stays among them, got layer {layer} "
                f"({reason}). Choose another window."
            )
    return window


@dataclass(frozen=True)
class Work:
    """A window that is replaced, on what, and how similar the streams around each window are where one was chosen by that."""

    loaded: LoadedModel
    window: tuple[int, ...]
    learning: Learning
    settings: Replacing
    similarity: np.ndarray
    start: Start | None = None  # what the first weights are, of the name and the weights of the window's first layer

    def done(self, folder: Path | None, on_partial: OnPartial | None, progress: Progress) -> Edit:
        """Train to the end; return the edit with the layer."""
        progress(0, 1, "measuring memory")
        layer = self.layer()
        trainer = self.training(layer, folder)
        if not trainer.resume():
            trainer.begin()
        made = lambda stopped: self._edit(trainer, None, stopped)  # noqa: E731
        stopped = trainer.run(progress, lambda: None if on_partial is None else on_partial(made("unfinished")))
        if not trainer.best:
            raise NothingLearntError(
                f"Nothing was learnt: expected a layer that is nearer to layers {self.window[0]}-{self.window[-1]} than the first of them, "
                f"got none{f', as {stopped}' if stopped else ''}. Take more prompts or epochs, or another `learning_rate`."
            )
        if not self.settings.answer_epochs or stopped:
            return made(stopped)
        answering = self._answering(trainer, folder)
        if not answering.resume():
            answering.begin()
        also = lambda stopped: self._edit(trainer, answering, stopped)  # noqa: E731
        stopped = answering.run(progress, lambda: None if on_partial is None else on_partial(also("unfinished")))
        return also(stopped)

    def layer(self) -> Any:
        """Return the window's first layer of a view, whose weights are to be owned."""
        view = apply_edit(self.loaded.model, Edit(self.loaded.n_layers))
        path, _ = find_decoder_path(view)
        return view.get_submodule(f"{path}.{self.window[0]}")

    def training(self, layer: Any, folder: Path | None) -> StandIn:
        """Return the training of the layer, with weights of its own, with as many prompts at a time as fit into memory."""
        factors = own_weights(layer)
        if self.start is not None:
            with torch.no_grad():
                for name, value in factors.items():
                    value.copy_(self.start(name, value))
        work = self.learning
        trainer = StandIn(
            loaded=self.loaded,
            view=layer,
            edit=Edit(self.loaded.n_layers),
            work=work.prepared,
            rows=work.rows,
            held_out=work.held_out,
            factors=factors,
            schedule=self.settings,
            batch=1,
            folder=folder and folder / "window",
            key=self._key("window"),
            window=self.window,
        )
        trainer.batch = self._batch(trainer)
        return trainer

    def _batch(self, trainer: Training[Any]) -> int:
        """Return how many prompts run together, by what the longest keeps."""
        item = self.learning.prepared.encoded[self.learning.longest()]
        kept = kept_bytes(self.loaded.model, lambda: trainer.losses_of([item]))
        gc.collect()
        return plan_memory(
            name=self.loaded.name,
            dtype=self.loaded.dtype,
            factors=4 * COPIES * sum(value.numel() for value in trainer.factors.values()),
            activations=kept,
            recomputed=kept,
            batch_size=min(self.settings.batch_size, len(self.learning.rows)),
            free=free_bytes(self.loaded.device),
        ).batch

    def _answering(self, trained: StandIn, folder: Path | None) -> AnsweringStandIn:
        """Return the training of the same layer on answers, from its best state on."""
        edit = self._edit(trained, None, "")
        view = apply_edit(self.loaded.model, edit)
        own_parameters(view)
        path, _ = find_decoder_path(view)
        trainer = AnsweringStandIn(
            loaded=self.loaded,
            view=view,
            edit=edit,
            work=self.learning.prepared,
            rows=self.learning.rows,
            held_out=self.learning.held_out,
            factors=own_weights(view.get_submodule(f"{path}.{self.window[0]}")),
            schedule=replace(self.settings, epochs=self.settings.answer_epochs),
            batch=1,
            folder=folder and folder / "answers",
            key=self._key(edit.key),
        )
        trainer.batch = self._batch(trainer)
        return trainer

    def _key(self, stage: str) -> str:
        """Return what names this work: model, window, prompts, settings and libraries."""
        work, versions = self.learning, [torch.__version__, version("transformers")]
        settings = [stage, self.window, self.settings.to_json(), work.rows, work.held_out, versions]
        what = [self.loaded.fingerprint, work.used.fingerprint, *settings]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _edit(self, trainer: StandIn, answering: AnsweringStandIn | None, stopped: str) -> Edit:
        """Return the edit with the best weights so far, with what is known of them in its provenance."""
        work, dense = self.learning, Edit(self.loaded.n_layers)
        best = answering.best if answering is not None and answering.best else trainer.best
        change = Replace(self.window, Tensors.of(taken(best)), learnt_on=dense.key)
        about: dict[str, Any] = {
            "window": list(self.window),
            **({"similarity": float(self.similarity[self.window[0]])} if len(self.similarity) else {}),
            "settings": self.settings.to_json(),
            "prompts": work.used.fingerprint,
            "n_trained": len(work.rows),
            "n_held_out": len(work.held_out),
            "steps": trainer.step,
            "best_step": trainer.best_step,
            "curve": trainer.curve,
            "held_out_distance": [trainer.curve[0][2], min(found for *_, found in trainer.curve)],
            "window_distance": self._window_distance,
            **({"stopped": stopped} if stopped else {}),
            **({"set_aside": work.prepared.set_aside} if work.prepared.set_aside else {}),
        }
        if answering is not None:
            about |= {
                "answer_steps": answering.step,
                "best_answer_step": answering.best_step,
                "answer_curve": answering.curve,
                "held_out_nll": [answering.curve[0][2], min(found for *_, found in answering.curve)],
            }
        edit = Edit(self.loaded.n_layers, (change,), model=self.loaded.info, provenance={REPLACE: about})
        return replace(edit, name=edit.words())

    @cached_property
    def _window_distance(self) -> float:
        """Return the mean squared distance between the streams ahead of and behind the window, on held-out prompts."""

        def apart(items: Any) -> torch.Tensor:
            seen = watch_window(self.loaded, self.window, items)
            return distances(seen.entering, seen.leaving, [item.n_tokens for item in items])

        work, dense = self.learning, Edit(self.loaded.n_layers)
        return mean_of(work.prepared, dense, work.held_out, self.settings.batch_size, apart)
