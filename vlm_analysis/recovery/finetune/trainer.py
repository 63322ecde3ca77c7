"""The loop of a fine-tuning: steps, measuring on held-out prompts, the best state so far, and going on after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, TypeVar

import torch
from torch import nn

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EditError, PromptError
from vlm_analysis.evaluation.run.prepared import Prepared, answer_logits
from vlm_analysis.guard.schema import fields, listed, maybe, number, row, whole
from vlm_analysis.models.inputs import Encoded, batches
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.progress import Progress, stop_if_asked
from vlm_analysis.recovery.finetune.adapters import devices_of, dropping_out
from vlm_analysis.recovery.finetune.kept import Kept, keep, open_kept
from vlm_analysis.recovery.finetune.losses import answer_nlls, losses
from vlm_analysis.recovery.tunings import Tuning

T = TypeVar("T")
MOST_NORM = 1.0  # gradients are cut to this norm; our choice
_ABOUT = fields(
    {
        "step": whole(1),
        "best_step": whole(0),
        "curve": listed(row(whole(0), maybe(number()), number()), least=1),
    }
)


@dataclass
class Trainer:
    """A running fine-tuning.

    Attributes:
        work: the prompts; `rows` of them are trained on, `held_out` are not.
        view: the edited model with the `factors` in it.
        batch: prompts that run together.
        folder: where it is kept after each check; None keeps nothing. `key` names the work.
        curve: after each check the step, the mean loss of the steps since the last one (None at 0), and the held-out answer NLL.
        best: the factors with the lowest held-out answer NLL, and `best_step` their step; none while the edit as it was is best.
    """

    loaded: LoadedModel
    view: Any
    edit: Edit
    work: Prepared
    rows: Sequence[int]
    held_out: Sequence[int]
    factors: dict[str, nn.Parameter]
    tuning: Tuning
    batch: int
    folder: Path | None
    key: str
    step: int = 0
    curve: list[tuple[int, float | None, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_step: int = 0
    _since: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n_steps = self.tuning.n_steps(len(self.rows))
        self._optimiser = torch.optim.AdamW(
            list(self.factors.values()), lr=self.tuning.learning_rate, weight_decay=self.tuning.weight_decay
        )

    def begin(self) -> None:
        """Measure the edit as it is, before the first step.

        Raises:
            EditError: its answer NLL is not finite.
        """
        nll = self.measure()
        if not math.isfinite(nll):
            raise EditError(
                f"{self.loaded.name} cannot be tuned: expected a finite answer NLL of a model that {self.edit.words()}, got {nll}. Load "
                "it in another precision, or drop fewer layers."
            )
        self.curve = [(0, None, nll)]

    def run(self, progress: Progress, on_better: Callable[[], None]) -> str:
        """Go on to the last step; return why it stopped before, "" where it did not. `on_better` is called after a better check.

        Raises:
            Cancelled: raised by `progress`, which is called before each step, or by `stop_if_asked` inside of one.
        """
        checked = self.tuning.checked_after(self.n_steps)
        handles = [factor.register_hook(lambda _: stop_if_asked()) for factor in self.factors.values()]
        try:
            while self.step < self.n_steps:
                progress(self.step, self.n_steps, self.words())
                loss = self._train(self._rows_of(self.step))
                if not math.isfinite(loss):
                    return f"the loss was {loss} at step {self.step + 1}"
                self.step += 1
                self._since.append(loss)
                if self.step in checked:
                    nll = self.measure()
                    if not math.isfinite(nll):
                        return f"the held-out answer NLL was {nll} after step {self.step}"
                    self._note(nll, on_better)
        finally:
            for handle in handles:
                handle.remove()
        progress(self.n_steps, self.n_steps, self.words())
        return ""

    def words(self) -> str:
        """Return where it is, for the progress."""
        newest = self._since[-1] if self._since else self.curve[-1][1]
        loss = "" if newest is None else f"loss {newest:.3f}, "
        held_out = f"held-out answer NLL {self.curve[-1][2]:.3f}"
        return (
            f"tuning: {loss}{held_out} (best {min(nll for *_, nll in self.curve):.3f}, at first {self.curve[0][2]:.3f})"
        )

    def measure(self) -> float:
        """Return the mean answer NLL of the held-out prompts."""
        return mean_nll(self.work, self.edit, self.view, self.held_out, self.batch)

    def resume(self) -> bool:
        """Go on from the file in the folder; return whether there is one of this work."""
        if self.folder is None:
            return False
        own = {name: tuple(factor.shape) for name, factor in self.factors.items()}
        shapes = {f"{part}/{name}": shape for part in ("now", "best", "first", "second") for name, shape in own.items()}
        kept = open_kept(self.folder, self.key, shapes)
        if kept is None or not self._is_whole(kept):
            return False
        about, tensors = kept.about, kept.tensors
        self.step, self.best_step = about["step"], about["best_step"]
        self.curve = [tuple(one) for one in about["curve"]]
        with torch.no_grad():
            for name, factor in self.factors.items():
                factor.copy_(tensors[f"now/{name}"])
                self._optimiser.state[factor] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": tensors[f"first/{name}"].to(factor.device),
                    "exp_avg_sq": tensors[f"second/{name}"].to(factor.device),
                }
        self.best = {name: tensors[f"best/{name}"] for name in own if f"best/{name}" in tensors}
        return True

    def _is_whole(self, kept: Kept) -> bool:
        try:
            _ABOUT(kept.about, "the fine-tuning")
        except ValueError:
            return False
        has_best = any(name.startswith("best/") for name in kept.tensors)
        return kept.about["step"] <= self.n_steps and has_best == bool(kept.about["best_step"])

    def _note(self, nll: float, on_better: Callable[[], None]) -> None:
        """Take a check into the curve, keep the factors if they are the best, and write the file."""
        is_better = nll < min(known for *_, known in self.curve)
        self.curve.append((self.step, sum(self._since) / len(self._since), nll))
        self._since = []
        if is_better:
            self.best = {name: factor.detach().cpu().clone() for name, factor in self.factors.items()}
            self.best_step = self.step
        if self.folder is not None:
            keep(self.folder, self.key, self._kept())
        if is_better:
            on_better()

    def _kept(self) -> Kept:
        about = {
            "step": self.step,
            "best_step": self.best_step,
            "curve": self.curve,
        }
        tensors = {f"best/{name}": tensor for name, tensor in self.best.items()}
        for name, factor in self.factors.items():
            state = self._optimiser.state[factor]
            tensors |= {f"now/{name}": factor, f"first/{name}": state["exp_avg"], f"second/{name}": state["exp_avg_sq"]}
        return Kept(about, tensors)

    def _rows_of(self, step: int) -> list[int]:
        """Return the rows of a step: each epoch has an order of its own, drawn with the seed."""
        per_epoch = math.ceil(len(self.rows) / self.tuning.batch_size)
        epoch, place = divmod(step, per_epoch)
        order = Random(f"{self.tuning.seed}/{epoch}").sample(list(self.rows), len(self.rows))
        return order[place * self.tuning.batch_size : (place + 1) * self.tuning.batch_size]

    def _train(self, rows: Sequence[int]) -> float:
        """Take one step on these rows, in parts; return the mean loss. Where it is not finite, the factors stay as they were."""

        def add(items: Sequence[Encoded]) -> float:
            loss, _ = losses(self.loaded, self.view, self.edit, items, self.tuning)
            (loss.sum() / len(rows)).backward()
            return float(loss.detach().sum())

        self._optimiser.zero_grad()
        with torch.enable_grad(), torch.random.fork_rng(devices_of(self.view)), dropping_out(self.view):
            torch.manual_seed(self.tuning.seed * 1_000_003 + self.step)  # of dropout: the same after a kill
            total = sum(_in_parts(self.work, self.edit, rows, self.batch, add))
        norm = float(nn.utils.clip_grad_norm_(list(self.factors.values()), MOST_NORM))
        if not math.isfinite(total + norm):
            return math.nan
        for group in self._optimiser.param_groups:
            group["lr"] = self.tuning.rate_at(self.step, self.n_steps)
        self._optimiser.step()
        return total / len(rows)


@torch.no_grad()
def mean_nll(work: Prepared, edit: Edit, model: Any, rows: Sequence[int], batch: int) -> float:
    """Return the mean answer NLL of a model, made by `edit`, on rows of the prepared prompts, in nats; NaN where it takes none."""

    def nlls(items: Sequence[Encoded]) -> list[float]:
        stop_if_asked()
        return answer_nlls(answer_logits(work.loaded, model, items), items).tolist()

    found = [nll for part in _in_parts(work, edit, rows, batch, nlls) for nll in part]
    return fmean(found) if found else math.nan


def _in_parts(
    work: Prepared, edit: Edit, rows: Sequence[int], batch: int, run: Callable[[Sequence[Encoded]], T]
) -> Iterator[T]:
    """Yield what `run` returns for the rows, a batch at a time; prompts that the model refuses are set aside.

    Raises:
        PromptError: none is left.
    """
    rows = work.scored(rows)
    for part in batches([work.encoded[one] for one in rows], batch):
        here = [rows[index] for index in part]
        while here := work.scored(here):
            try:
                found = run([work.encoded[one] for one in here])
            except PromptError as error:
                work.refuse(here, edit, error)
            else:
                yield found
                break
