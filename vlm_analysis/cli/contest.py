"""The result of a contest of kinds."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from vlm_analysis.cli.output import Result, rows_of
from vlm_analysis.cli.results import grid, item_data, kept_line
from vlm_analysis.evaluation.telling import above_line, told_lines
from vlm_analysis.selection.contest.contest import Contest
from vlm_analysis.selection.contest.file import save_contest
from vlm_analysis.workbench.workspace import Item


def of_contest(contest: Contest, item: Item | None) -> Result:
    """Return which kind keeps most, and the scores of each entry on each domain."""
    table, says = contest.table(), contest.verdict()
    edits = "\n".join(f"{one.title}: {one.edit.words()} ({one.method}; {one.tried} tried)" for one in contest.entries)
    timed = f"Prefills were timed on {contest.timed}.\n" if contest.timed else ""
    data = {
        **item_data(item),
        "model": asdict(contest.model),
        "prompts": contest.prompts,
        "chosen_on": contest.chosen_on,
        "n_chosen_on": contest.n_chosen_on,
        "n_shared": contest.n_shared,
        "share": contest.share,
        "of": contest.of,
        "verdict": says,
        "metric": contest.metric,
        "missing": dict(contest.missing),
        "recovery": dict(contest.recovery),
        "timed": contest.timed,
        "stopped": contest.stopped,
        "edits": [{"entry": one.title, "key": one.edit.key, "what": one.edit.words()} for one in contest.entries],
        "rows": rows_of(table),
    }
    above = above_line(table["high"].to_numpy(float))
    above = f"{above}\n" if above else ""
    told = told_lines(contest.metric, contest.dense)
    text = f"{says}\n{contest.fresh_words()}\n{told}{timed}\n{grid(printed(table))}\n{above}{edits}{kept_line(item)}"
    return Result("Contest", text, data, table, forms={".json": lambda path: save_contest(contest, path)})


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a contest's table that a terminal has room for, in words."""
    ends = zip(table["retention"], table["low"], table["high"], strict=True)
    timed = {} if table["speedup"].isna().all() else {"times as fast": table["speedup"]}
    shown = {
        "kind": table["kind"],
        "recovered": table["recovered"].replace("", "–"),
        "domain": table["domain"],
        "n": table["n"],
        "kept": [f"{kept:.0%}" + (f" ({low:.0%}–{high:.0%})" if np.isfinite(low) else "") for kept, low, high in ends],
        "exact match": table["exact_match"],
        "KL": table["kl_to_dense"],
        "NLL": table["answer_nll"],
        "parameters gone": [f"{saved:.1%}" for saved in table["saved"]],
    }
    return pd.DataFrame({**shown, **timed})
