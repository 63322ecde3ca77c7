"""Results of recovery: a repaired or tuned edit, and the ledger of what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import pandas as pd

from vlm_analysis.cli.output import Result, rows_of
from vlm_analysis.cli.results import grid, item_data, kept_line, of_mask
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import NothingLearntError
from vlm_analysis.evaluation.telling import above_line, told_lines
from vlm_analysis.export.report import Section
from vlm_analysis.recovery.findings import best_row, fresh_words, headline, returned, with_ends
from vlm_analysis.recovery.ledger import Ledger, save_ledger
from vlm_analysis.words import duration, layers, sentence
from vlm_analysis.workbench.workspace import Item

EXAMPLES = 3  # of each outcome that are printed
TOLD = ("came back", "still lost", "broke")  # outcomes of which examples are printed


def of_repair(edit: Edit, item: Item) -> Result:
    """Return what was repaired, a line for each run of dropped layers."""
    made, lines = of_mask(edit, item), []
    runs = edit.provenance["repair"]["runs"]
    for run in runs:
        told = run.get("reason") or f"folded into layer {run['layer']} ({run['module']})"
        left = f"; of what they added, {run['gap_left']:.0%} is missing on these prompts" if "gap_left" in run else ""
        lines.append(f"{sentence(layers(run['dropped']))}: {told}{left}")
    first, *rest = made.text.splitlines()
    return replace(made, text="\n".join([first, *lines, *rest]), data={**made.data, "runs": runs})


def of_tuned(edit: Edit, item: Item) -> Result:
    """Return what an edit does, and what its tuning brought on the prompts that were held out."""
    made, told = of_mask(edit, item), edit.provenance["finetune"]
    before, after = told["held_out_nll"]
    lines = [
        f"Held-out answer NLL: {before:.3f} before, {after:.3f} after ({told['n_held_out']} prompts)",
        f"Tuned on {told['n_trained']} prompts in {told['steps']} steps; the state after step {told['best_step']} is kept",
        *([f"Stopped before the end: {told['stopped']}"] if "stopped" in told else []),
    ]
    first, *rest = made.text.splitlines()
    return replace(made, text="\n".join([first, *lines, *rest]), data={**made.data, "finetune": told})


def of_replaced(edit: Edit, item: Item) -> Result:
    """Return which window was replaced, and how near the layer comes to it on the prompts that were held out."""
    made, told = of_mask(edit, item), edit.provenance["replace"]
    (before, after), whole = told["held_out_distance"], told["window_distance"]
    similar = f" (cosine {told['similarity']:.4f} over it)" if "similarity" in told else ""
    lines = [
        f"{sentence(layers(told['window']))} became one{similar}",
        f"Held-out squared distance to the window: {before / whole:.0%} of what the window changes before, {after / whole:.0%} after "
        f"({told['n_held_out']} prompts)",
        f"Trained on {told['n_trained']} prompts in {told['steps']} steps; the state after step {told['best_step']} is kept",
    ]
    if "held_out_nll" in told:
        lines.append("Then on answers: held-out answer NLL {:.3f} before, {:.3f} after".format(*told["held_out_nll"]))
    lines += [f"Stopped before the end: {told['stopped']}"] if "stopped" in told else []
    first, *rest = made.text.splitlines()
    return replace(made, text="\n".join([first, *lines, *rest]), data={**made.data, "replace": told})


def of_nothing(edit: Edit, how: Sequence[str], finding: NothingLearntError) -> Result:
    """Return that a way of recovery found nothing better than the edit, which is a finding too; no edit is kept."""
    data = {"key": edit.key, "how": " ".join(how), "found": False, "reason": str(finding)}
    text = f"{finding}\nNo edit is saved."
    return Result("Recovery", text, data, pd.DataFrame([data]))


def of_ledger(ledger: Ledger, item: Item | None) -> Result:
    """Return the finding, the scores of each model on each domain, and examples of what came back and what broke."""
    table, says = ledger.table(), f"{headline(ledger)}\n{fresh_words(ledger)}"
    told = told_lines(ledger.metric, ledger.cut)
    examples = examples_of(ledger)
    notes = "".join(f"\n{sentence(row.title)}: {row.note}" for row in ledger.rows if row.note)
    shown = "" if examples.empty else f"\n\n{grid(examples)}"
    data = {
        **item_data(item),
        "model": asdict(ledger.model),
        "prompts": ledger.prompts,
        "learnt_on": ledger.learnt_on,
        "n_learnt_on": ledger.n_learnt_on,
        "n_chosen_on": ledger.n_chosen_on,
        "edit": ledger.edit.key,
        "headline": headline(ledger),
        "metric": ledger.metric,
        "rows": rows_of(table),
        "examples": rows_of(examples),
    }

    def sections() -> list[Section]:
        from vlm_analysis.figures.recovered import ledger_bars

        return [
            Section("What comes back", f"{says}\n{told}{notes}", ledger_bars(table)),
            *([] if examples.empty else [Section("Examples", "", table=examples)]),
        ]

    above = above_line(table[["high_of_dense", "high_of_tuned"]].to_numpy(float).ravel())
    above = f"\n{above}" if above else ""
    text = f"{says}\n{told}\n{grid(printed(table))}{above}{notes}{shown}{kept_line(item)}"
    forms = {".json": lambda path: save_ledger(ledger, path)}
    return Result("Recovery", text, data, table, sections, forms)


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a ledger's table that a terminal has room for, in words."""
    dense, tuned = (with_ends(table, reference) for reference in ("dense", "tuned"))
    shown = {
        "model": table["row"],
        "domain": table["domain"],
        "n": table["n"],
        "exact match": table["exact_match"],
        "NLL": table["answer_nll"],
        "KL": table["kl_to_dense"],
        "of dense": dense,
        **({"of dense tuned": tuned} if table["retention_of_tuned"].notna().any() else {}),
        "learnt in": ["–" if pd.isna(seconds) else duration(seconds) for seconds in table["seconds"]],
        "MB": table["n_bytes"] / 1e6,
    }
    return pd.DataFrame(shown)


def examples_of(ledger: Ledger) -> pd.DataFrame:
    """Return some answers of each outcome of `TOLD`, of the way that gives most back: outcome, id, answer, and what each model says."""
    best = best_row(ledger)
    if best is None:
        return pd.DataFrame()
    changes = returned(ledger, best)
    rows = changes[changes["outcome"].isin(TOLD)].groupby("outcome", sort=False).head(EXAMPLES)
    named = {"cut_says": "cut says", "edited_says": f"{best.title} says"}
    return rows[["outcome", "id", "answer", *named]].rename(columns=named).reset_index(drop=True)
