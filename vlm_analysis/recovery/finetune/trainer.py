"""The loop of a training: steps, measuring on held-out prompts, the best state so far, and going on after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, ClassVar, Generic, TypeVar

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
from vlm_analysis.recovery.schedules import Schedule
from vlm_analysis.recovery.tunings import Tuning

T = TypeVar("T")
S = TypeVar("S", bound=Schedule)
_ABOUT = fields(
    {
        "step": whole(1),
        "best_step": whole(0),
        "curve": listed(row(whole(0), maybe(number()), number()), least=1),
    }
)


@dataclass
class Training(Generic[S]):
    """A running training; its kinds say what is made smaller (`losses_of`) and what is measured (`measured_of`).

    Attributes:
        work: the prompts; `rows` of them are trained on, `held_out` are not.
        view: the edited model with the `factors` in it: what is trained, in float32.
        schedule: steps and rates.
        batch: prompts that run together.
        folder: where it is kept after each check; None keeps nothing. `key` names the work.
        curve: after each check the step, the mean loss of the steps since the last one (None at 0), and what was measured on the held-out
            prompts.
        best: the factors with the lowest of these, and `best_step` their step; none while those at first are best.
    """

    loaded: LoadedModel
    view: Any
    edit: Edit
    work: Prepared
    rows: Sequence[int]
    held_out: Sequence[int]
    factors: dict[str, nn.Parameter]
    schedule: S
    batch: int
    folder: Path | None
    key: str
    step: int = 0
    curve: list[tuple[int, float | None, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_step: int = 0
    _since: list[float] = field(default_factory=list)

    doing: ClassVar[str] = "tuning"
    measured: ClassVar[str] = "answer NLL"

    def losses_of(self, items: Sequence[Encoded]) -> torch.Tensor:
        """Return what is made smaller, of each prompt (n_prompts,)."""
        raise NotImplementedError

    def measured_of(self, items: Sequence[Encoded]) -> torch.Tensor:
        """Return what is measured, of each prompt (n_prompts,)."""
        raise NotImplementedError

    def measure(self) -> float:
        """Return the mean over the held-out prompts of what is measured."""
        return mean_of(self.work, self.edit, self.held_out, self.batch, self.measured_of)

    def __post_init__(self) -> None:
        self.n_steps = self.schedule.n_steps(len(self.rows))
        self._optimiser = torch.optim.AdamW(
            list(self.factors.values()), lr=self.schedule.learning_rate, weight_decay=self.schedule.weight_decay
        )

    def begin(self) -> None:
        """Measure the edit as it is, before the first step.

        Raises:
            EditError: what is measured is not finite.
        """
        found = self.measure()
        if not math.isfinite(found):
            raise EditError(
                f"{self.loaded.name} cannot be tuned: expected a finite {self.measured} of a model that {self.edit.words()}, got {found}. "
                "Load it in another precision, or drop fewer layers."
            )
        self.curve = [(0, None, found)]

    def run(self, progress: Progress, on_better: Callable[[], None]) -> str:
        """Go on to the last step; return why it stopped before, "" where it did not. `on_better` is called after a better check.

        Raises:
            Cancelled: raised by `progress`, which is called before each step, or by `stop_if_asked` inside of one.
        """
        checked = self.schedule.checked_after(self.n_steps)
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
                    found = self.measure()
                    if not math.isfinite(found):
                        return f"the held-out {self.measured} was {found} after step {self.step}"
                    self._note(found, on_better)
        finally:
            for handle in handles:
                handle.remove()
        progress(self.n_steps, self.n_steps, self.words())
        return ""

    def words(self) -> str:
        """Return where it is, for the progress."""
        newest = self._since[-1] if self._since else self.curve[-1][1]
        loss = "" if newest is None else f"loss {newest:.3f}, "
        held_out = f"held-out {self.measured} {self.curve[-1][2]:.3f}"
        least = min(found for *_, found in self.curve)
        return f"{self.doing}: {loss}{held_out} (best {least:.3f}, at first {self.curve[0][2]:.3f})"

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

    def _note(self, found: float, on_better: Callable[[], None]) -> None:
        """Take a check into the curve, keep the factors if they are the best, and write the file."""
        is_better = found < min(known for *_, known in self.curve)
        self.curve.append((self.step, sum(self._since) / len(self._since), found))
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
        per_epoch = math.ceil(len(self.rows) / self.schedule.batch_size)
        epoch, place = divmod(step, per_epoch)
        order = Random(f"{self.schedule.seed}/{epoch}").sample(list(self.rows), len(self.rows))
        return order[place * self.schedule.batch_size : (place + 1) * self.schedule.batch_size]

    def _train(self, rows: Sequence[int]) -> float:
        """Take one step on these rows, in parts; return the mean loss. Where it is not finite, the factors stay as they were."""

        def add(items: Sequence[Encoded]) -> float:
            loss = self.losses_of(items)
            (loss.sum() / len(rows)).backward()
            return float(loss.detach().sum())

        self._optimiser.zero_grad()
        with torch.enable_grad(), torch.random.fork_rng(devices_of(self.view)), dropping_out(self.view):
            torch.manual_seed(self.schedule.seed * 1_000_003 + self.step)  # of dropout: the same after a kill
            total = sum(_in_parts(self.work, self.edit, rows, self.batch, add))
        norm = float(nn.utils.clip_grad_norm_(list(self.factors.values()), self.schedule.most_norm))
        if not math.isfinite(total + norm):
            return math.nan
        for group in self._optimiser.param_groups:
            group["lr"] = self.schedule.rate_at(self.step, self.n_steps)
        self._optimiser.step()
        return total / len(rows)


@dataclass
class Trainer(Training[Tuning]):
    """A running fine-tuning: low-rank factors are learnt on answers."""

    def losses_of(self, items: Sequence[Encoded]) -> torch.Tensor:
        return losses(self.loaded, self.view, self.edit, items, self.schedule)[0]

    def measure(self) -> float:
        """Return the mean answer NLL of the held-out prompts."""
        return mean_nll(self.work, self.edit, self.view, self.held_out, self.batch)


def mean_nll(work: Prepared, edit: Edit, model: Any, rows: Sequence[int], batch: int) -> float:
    """Return the mean answer NLL of a model, made by `edit`, on rows of the prepared prompts, in nats; NaN where it takes none."""
    return mean_of(work, edit, rows, batch, lambda items: answer_nlls(answer_logits(work.loaded, model, items), items))


@torch.no_grad()
def mean_of(
    work: Prepared, edit: Edit, rows: Sequence[int], batch: int, run: Callable[[Sequence[Encoded]], torch.Tensor]
) -> float:
    """Return the mean over rows of the prepared prompts of what `run` returns of each; NaN where the model takes none."""

    def numbers(items: Sequence[Encoded]) -> list[float]:
        stop_if_asked()
        return run(items).tolist()

    found = [one for part in _in_parts(work, edit, rows, batch, numbers) for one in part]
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
