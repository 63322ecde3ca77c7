"""What recovery gives back, on the bundled model: a table of masks, ways to recover them and held-out drawings, made mask by mask.

    python -m benchmarks.recovery --out FOLDER              # all cells that are missing
    python -m benchmarks.recovery --out FOLDER --most 2     # those of two masks
    python -m benchmarks.recovery --out FOLDER --missing    # only says which are missing

Masks are chosen by the six rankings of the preset of arXiv:2603.20275 at four shares of the layers between the first and the last, on
drawings of their own for each seed; masks that several rankings give are measured once, under all their names. Each is measured as it is
cut and recovered in each way, on two other draws: fresh drawings of every task, and hard ones, of the tasks that are answered in steps or
whole sentences. Further random draws are measured as they are cut. The dense model is measured as it is and tuned alike. A mask's file is
written when all its ways are measured, and a mask that has one is not run again. A recovery that takes longer than the limit, in seconds of
processor time, is noted so. Findings on this model say nothing about larger
ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlm_analysis import (
    Edit,
    Evaluation,
    LoadedModel,
    PromptSet,
    domain_aware_masks,
    evaluate,
    finetune,
    load_model,
    record,
    repair,
)
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.evaluation import METRICS
from vlm_analysis.evaluation.run.evaluate import batch_for, evaluation_of
from vlm_analysis.evaluation.run.prepared import prepare
from vlm_analysis.evaluation.run.sweep import open_scores, sweep_prepared
from vlm_analysis.files import write_atomically
from vlm_analysis.pocket.card import as_prompts
from vlm_analysis.pocket.tasks import GENERAL, MATH, make_examples
from vlm_analysis.progress import Cancelled
from vlm_analysis.selection.strategies.many import RANDOM

SHARES = (0.5, 0.4, 0.25, 0.1)  # the heavy first: light masks hide recovery
HARD = ("caption", "count-steps", "bar-steps", "sum-solve")
HOWS = ("cut", "ridge", "subspace", "scale", "tuned", "ridge + tuned")
TUNING = {"how": "small", "most_steps": 24, "checks": 3}
FIT = 60  # drawings of each domain to choose masks, fit and tune on
DRAWS = 3  # random masks at each share; the first is recovered too


def drawn(name: str, n: int, *, hard: bool = False) -> PromptSet:
    """Return n drawings of each domain that neither training nor the packs have, with their tasks; the same for the same name."""
    chosen = []
    for domain in (GENERAL, MATH):
        count = n
        while len(found := _of_tasks(domain, count, name, hard)) < n:
            count *= 2
        chosen += found[:n]
    tasks = [example.task for example in chosen]
    return PromptSet(replace(one, task=task) for one, task in zip(as_prompts(chosen), tasks, strict=True))


def _of_tasks(domain: str, count: int, name: str, hard: bool) -> list[Any]:
    return [one for one in make_examples(domain, count, split=f"recovery {name}") if not hard or one.task in HARD]


@dataclass(frozen=True)
class Planned:
    """A mask to measure: the rankings and shares that give it, and the ways in which it is recovered."""

    mask: Edit
    names: list[str]
    hows: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"{'-'.join(map(str, self.mask.dropped)) or 'dense'}.json"


def planned(loaded: LoadedModel, fit: PromptSet, seed: int) -> list[Planned]:
    """Return the distinct masks of a seed in the order in which they are measured, the dense model first."""
    recording = record(loaded, fit, batch_size=32, full=True)
    ways, _ = domain_aware_masks(recording, SHARES, targets=(MATH,), n_draws=DRAWS, seed=100 * seed)
    names: dict[Edit, list[str]] = {}
    hows: dict[Edit, tuple[str, ...]] = {}
    for way in sorted(ways, key=lambda way: (-way.budget, way.draw)):
        names.setdefault(way.mask, []).append(way.mask.name)
        hows.setdefault(way.mask, ("cut",) if way.method == RANDOM and way.draw else HOWS)
    dense = Planned(Edit(loaded.n_layers), ["dense"], ("cut", "tuned"))
    return [dense, *(Planned(mask, names[mask], hows[mask]) for mask in names)]


def recovered(loaded: LoadedModel, edit: Edit, how: str, fit: PromptSet, limit_s: float) -> Edit:
    """Return an edit recovered in one way.

    Raises:
        Cancelled: that took longer than the limit.
    """
    end = time.process_time() + limit_s

    def stop_late(done: int, total: int, message: str) -> None:
        if time.process_time() > end:
            raise Cancelled

    if how == "tuned":
        return finetune(loaded, edit, fit, **TUNING, on_progress=stop_late)
    return edit if how == "cut" else repair(loaded, edit, fit, how, on_progress=stop_late)


class Draw:
    """The drawings of one seed: those to choose and fit on, and two prepared sets to report on with the dense model's answers."""

    def __init__(self, loaded: LoadedModel, fit: PromptSet, seed: int, n: int, n_hard: int) -> None:
        self.loaded, self.fit, self.batch = loaded, fit, batch_for(loaded)
        sets = {"fresh": drawn(f"report {seed}", n), "hard": drawn(f"hard {seed}", n_hard, hard=True)}
        self._dense = {name: evaluate(loaded, prompts) for name, prompts in sets.items()}
        self._work = {name: prepare(loaded, prompts, self._dense[name]) for name, prompts in sets.items()}

    def measured(self, edits: dict[str, Edit]) -> dict[str, dict[str, Any]]:
        """Return by way and set the scores of edits, what they have in common computed once."""
        found: dict[str, dict[str, Any]] = {how: {} for how in edits}
        for name, work in self._work.items():
            store, dense = open_scores(work, self.batch), self._dense[name]
            changed = [edit for edit in edits.values() if not edit.is_dense]
            sweep_prepared(work, changed, dense.dense_log_probs, store=store, batch_size=self.batch)
            for how, edit in edits.items():
                found[how][name] = scores_of(dense if edit.is_dense else evaluation_of(work, edit, store.of(edit.key)))
        return found

    def of_mask(self, what: Planned, limit_s: float) -> dict[str, Any]:
        """Return a mask's cells by way: what a recovery took and the scores; without scores where it was stopped."""
        cells: dict[str, Any] = {}
        edits: dict[str, Edit] = {}
        for how in what.hows:
            begun, clock = time.process_time(), time.monotonic()
            first, _, last = how.rpartition(" + ")  # what was made for a column before is taken over
            base = edits.get(first) if first else what.mask
            try:
                if base is None:
                    raise Cancelled
                edits[how] = recovered(self.loaded, base, last, self.fit, limit_s)
            except Cancelled:
                cells[how] = {"stopped_after_s": limit_s}
                continue
            except StrataError as error:
                cells[how] = {"refused": str(error)}
                continue
            told = edits[how].provenance
            cells[how] = {
                "processor_s": round(time.process_time() - begun, 1),
                "clock_s": round(time.monotonic() - clock, 1),
                "is_changed": edits[how] != what.mask,
                "runs": told.get("repair", {}).get("runs", []),
                "curve": told.get("finetune", {}).get("curve", []),
            }
        for how, scores in self.measured(edits).items():
            cells[how]["scores"] = scores
        return cells


def scores_of(evaluation: Evaluation) -> dict[str, list[Any]]:
    """Return the scores of each prompt by metric, with its domain and id, rounded to four digits."""
    frame = evaluation.by_prompt
    numbers = {name: [round(float(value), 4) for value in frame[name]] for name in METRICS}
    return {"id": frame["id"].tolist(), "domain": frame["domain"].tolist(), **numbers}


def shown(cells: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each way: the exact match in percent by set and domain."""
    for how, cell in cells.items():
        if "scores" not in cell:
            yield f"  {how}: {cell.get('refused', 'stopped')}"
            continue
        parts = []
        for name, scores in cell["scores"].items():
            for domain in dict.fromkeys(scores["domain"]):
                own = [hit for hit, its in zip(scores["exact_match"], scores["domain"], strict=True) if its == domain]
                parts.append(f"{name} {domain} {100 * sum(own) / len(own):.1f}")
        yield f"  {how}: {', '.join(parts)} ({cell['processor_s']} s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="several can run beside each other")
    parser.add_argument("--n", type=int, default=500, help="fresh drawings of each domain and seed to report on")
    parser.add_argument("--hard", type=int, default=500, help="hard drawings of each domain and seed to report on")
    parser.add_argument("--most", type=int, help="masks to measure now; all by default")
    parser.add_argument("--missing", action="store_true", help="only say what is missing")
    parser.add_argument("--seconds", type=float, default=60, help="of processor time that a recovery may take")
    asked = parser.parse_args()
    loaded, left = load_model(), 0 if asked.missing else asked.most
    for seed in asked.seeds:
        folder = asked.out / f"{asked.n}-{asked.hard}" / str(seed)
        plan = planned(loaded, fit := drawn(f"fit {seed}", FIT), seed)
        lacking = [what for what in plan if not (folder / what.file).exists()]
        draw = Draw(loaded, fit, seed, asked.n, asked.hard) if lacking[:left] else None
        for what in lacking[:left]:
            assert draw is not None
            about = {"seed": seed, "names": what.names, "dropped": what.mask.dropped}
            text = json.dumps(about | {"cells": (cells := draw.of_mask(what, asked.seconds))})
            write_atomically(folder / what.file, lambda part, text=text: part.write_text(text, "utf-8"))
            print(
                f"{time.strftime('%H:%M')} seed {seed}, {what.file}: {'; '.join(what.names)}",
                *shown(cells),
                sep="\n",
                flush=True,
            )
        missing = [] if left is None else lacking[left:]
        left = None if left is None else left - len(lacking[:left])
        print(f"seed {seed}: {len(plan) - len(missing)} of {len(plan)} masks in {folder}", flush=True)
        for what in missing:
            print(f"  missing: {what.file} ({'; '.join(what.names)}): {', '.join(what.hows)}", flush=True)


if __name__ == "__main__":
    main()
