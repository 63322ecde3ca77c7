"""Short fine-tuning of an edited model: low-rank updates are learnt on prompts and become a change of the edit."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.edit import Edit, check_edit
from vlm_analysis.edits.kinds.adapt import Adapt
from vlm_analysis.edits.learnt import Tensors
from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.run.prepared import answer_logits, prepare, with_one_answer
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.memory import free_bytes, within_memory
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recovery.finetune.activations import compute_again, kept_bytes, recomputed_bytes
from vlm_analysis.recovery.finetune.adapters import own_parameters, put_in, taken_out
from vlm_analysis.recovery.finetune.losses import losses
from vlm_analysis.recovery.finetune.targets import find_targets
from vlm_analysis.recovery.finetune.trainer import Trainer, mean_nll
from vlm_analysis.recovery.learning import Learning, check_trainable, prepare_to_learn
from vlm_analysis.recovery.memoryplan import MemoryPlan, plan_memory
from vlm_analysis.recovery.tunings import Tuning, tuning_of

FINETUNE = "finetune"  # the entry in an edit's provenance
OnPartial = Callable[[Edit], None]
COPIES = 5  # float32 numbers for each of a factor's: itself, its gradient, AdamW's two means, and the best so far


def finetune(
    loaded: LoadedModel,
    edit: Edit,
    prompts: Sequence[Prompt],
    how: str | Tuning = "small",
    *,
    folder: Path | None = None,
    on_partial: OnPartial | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> Edit:
    """Return the edit with an `Adapt`: low-rank updates of an edited model's linear layers, learnt on prompts and merged.

    The prompts' answers are learnt, and the dense model's own responses where there are none. A share of the prompts, by groups, is held
    out; of the states that were measured on them the one with the lowest answer NLL is kept. Where none is better than the edit as it
    is, it comes back without an `Adapt`. `provenance["finetune"]` has the settings, the curve, and the held-out answer NLL before and
    after, the latter of the merged weights. The dense model is not changed, whatever happens.

    Args:
        loaded: the dense model.
        edit: what is tuned; the dense model itself where it has no changes.
        prompts: of two groups or more. Report on others: these are noted as prompts that the edit was chosen on.
        how: "small", "domain-aware", "partners" or "projector" (see `TUNINGS`), or a Tuning.
        folder: where unfinished work is kept; the same call goes on from there.
        on_partial: called with the best edit so far whenever there is a better one.
        on_progress: called before each step; raising `Cancelled` in it stops the work.
        options: settings in place of those of `how`, such as `most_steps=20` or `hidden=1.0` (see `Tuning`).

    Raises:
        EditError: the model cannot be tuned, a setting is none, the prompts are of one group, memory is too small, or numbers stopped being
            finite before anything was better.
        PromptError: the model can take none of the prompts.
    """
    tuning = tuning_of(how, options)
    check_tunable(loaded, edit)
    progress = on_progress or no_progress
    name = how if isinstance(how, str) else "own"
    return within_memory(
        lambda: _Work(loaded, edit, prepare_to_learn(loaded, prompts, tuning, progress), tuning, name).done(
            folder, on_partial, progress
        ),
        lambda: EditError(
            f"{loaded.name} could not be tuned: expected enough memory, got less than it took. Nothing was changed. Take fewer prompts at "
            "a time (`batch_size`), a lower rank, or shorter prompts."
        ),
    )


def plan_tuning(
    loaded: LoadedModel, edit: Edit, prompts: Sequence[Prompt], how: str | Tuning = "small", **options: Any
) -> MemoryPlan:
    """Return how a tuning fits into memory, measured with one pass that keeps nothing; the longest of the prompts tells it.

    Args:
        edit, prompts, how, options: as of `finetune`. Few prompts are enough: the plan is that of as many as a step takes.

    Raises:
        EditError: as `finetune`, where one prompt does not fit too.
        PromptError: the model can take none of the prompts.
    """
    tuning = tuning_of(how, options)
    check_tunable(loaded, edit)
    used = PromptSet(prompts)
    prepared = prepare(loaded, PromptSet(map(with_one_answer, used.readable())))
    rows = tuple(prepared.scored(range(len(prepared.prompts))))
    return _Work(loaded, edit, Learning(prepared, used, rows, ()), tuning, "").ready(tuning.batch_size)[-1]


def check_tunable(loaded: LoadedModel, edit: Edit) -> None:
    """Check that an edit of this model can be tuned, as far as can be said before it is.

    Raises:
        EditError: it cannot: the edit is of other layers or was tuned before, or the weights are quantised, of another precision, or
            not in memory.
    """
    check_edit(edit, loaded.n_layers)
    failed = f"{loaded.name} cannot be tuned"
    check_trainable(loaded, failed)
    if any(isinstance(change, Adapt) for change in edit.changes):
        raise EditError(
            f"{failed}: expected an edit that was not tuned before, got one that {edit.words()}. Tune its base."
        )


@dataclass(frozen=True)
class _Work:
    """What is tuned on what."""

    loaded: LoadedModel
    edit: Edit
    learning: Learning
    tuning: Tuning
    name: str

    def ready(self, n_prompts: int) -> tuple[Any, tuple[str, ...], dict[str, torch.nn.Parameter], MemoryPlan]:
        """Return the edited model with factors in it, the names of its tuned modules, the factors, and how `n_prompts` of them fit."""
        view = apply_edit(self.loaded.model, self.edit)
        own_parameters(view)
        shortest = min(self.learning.rows, key=self.learning.length)
        targets = find_targets(view, self.edit, self.tuning.targets, lambda: self._run(view, shortest))
        factors = put_in(view, targets, self.tuning)
        return view, tuple(sorted(targets.values())), factors, self._plan(view, factors, n_prompts)

    def done(self, folder: Path | None, on_partial: OnPartial | None, progress: Progress) -> Edit:
        """Tune to the end; return the edit with what was learnt."""
        progress(0, 1, "measuring memory")
        work = self.learning
        view, modules, factors, plan = self.ready(len(work.rows))
        if plan.checkpointing:
            compute_again(view)
        trainer = Trainer(
            loaded=self.loaded,
            view=view,
            edit=self.edit,
            work=work.prepared,
            rows=work.rows,
            held_out=work.held_out,
            factors=factors,
            schedule=self.tuning,
            batch=plan.batch,
            folder=folder,
            key=self._key(modules),
        )
        progress(0, 1, f"tuning {len(modules)} linear layers, {plan.words()}")
        if not trainer.resume():
            trainer.begin()
        tuned = partial(self._tuned, trainer, modules, plan)
        stopped = trainer.run(progress, lambda: None if on_partial is None else on_partial(tuned("unfinished")))
        if stopped and not trainer.best:
            raise EditError(
                f"{self.loaded.name} could not be tuned: expected finite numbers, but {stopped}. Nothing was changed. Lower "
                "`learning_rate`."
            )
        return tuned(stopped)

    @torch.no_grad()
    def _run(self, view: Any, row: int) -> None:
        answer_logits(self.loaded, view, [self.learning.prepared.encoded[row]])

    def _plan(self, view: Any, factors: Mapping[str, torch.Tensor], n_prompts: int) -> MemoryPlan:
        """Measure what the longest prompt keeps; return the plan that fits."""
        item = self.learning.prepared.encoded[self.learning.longest()]
        kept = kept_bytes(view, lambda: losses(self.loaded, view, self.edit, [item], self.tuning))
        gc.collect()
        return plan_memory(
            name=self.loaded.name,
            dtype=self.loaded.dtype,
            factors=4 * COPIES * sum(factor.numel() for factor in factors.values()),
            activations=kept,
            recomputed=recomputed_bytes(view, kept, item.n_tokens),
            batch_size=min(self.tuning.batch_size, n_prompts),
            free=free_bytes(self.loaded.device),
        )

    def _key(self, modules: Sequence[str]) -> str:
        """Return what names this work: model, edit, prompts, settings and libraries."""
        versions = [torch.__version__, version("peft"), version("transformers")]
        work = self.learning
        settings = [modules, self.tuning.to_json(), work.rows, work.held_out, versions]
        what = [self.loaded.fingerprint, self.edit.key, work.used.fingerprint, *settings]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _tuned(self, trainer: Trainer, modules: tuple[str, ...], plan: MemoryPlan, stopped: str) -> Edit:
        """Return the edit with the best factors so far, merged and measured; as it was where there are none."""
        first, work = trainer.curve[0][2], self.learning
        about: dict[str, Any] = {
            "how": self.name,
            "settings": self.tuning.to_json(),
            "prompts": work.used.fingerprint,
            "n_trained": len(work.rows),
            "n_held_out": len(work.held_out),
            "steps": trainer.step,
            "best_step": trainer.best_step,
            "curve": trainer.curve,
            "held_out_nll": [first, first],
            "memory": plan.to_json(),
            **({"stopped": stopped} if stopped else {}),
            **({"set_aside": work.prepared.set_aside} if work.prepared.set_aside else {}),
        }
        changes = self.edit.changes
        if trainer.best:
            adapt = Adapt(Tensors.of(taken_out(trainer.best)), modules, self.tuning.scale)
            adapt = replace(adapt, learnt_on=self.edit.before(adapt).key)
            changes = (*changes, adapt)
            merged = apply_edit(self.loaded.model, replace(self.edit, changes=changes))
            about["held_out_nll"] = [first, mean_nll(work.prepared, self.edit, merged, work.held_out, plan.batch)]
        name = f"{self.edit.name or self.edit.words()}, tuned ({self.name})" if trainer.best else self.edit.name
        provenance = {**self.edit.provenance, FINETUNE: about}
        return replace(self.edit, changes=changes, name=name, model=self.loaded.info, provenance=provenance)
