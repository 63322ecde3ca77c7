"""What a Ledger says: the finding in a sentence, and what became of each answer that the cut took away."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlm_analysis.evaluation.answers import answer_changes
from vlm_analysis.evaluation.paired import paired_differences
from vlm_analysis.evaluation.telling import title_of
from vlm_analysis.recovery.ledger import Ledger, Row
from vlm_analysis.words import counted, sentence

RETURNS = {
    "came back": "The dense model is right, the cut one is not, the recovered one is again.",
    "still lost": "The dense model is right; neither the cut nor the recovered one is.",
    "broke": "The cut model is right, the recovered one is not.",
    "gained": "Only the recovered model is right.",
    "kept": "The cut and the recovered model are right.",
    "wrong": "No model is right.",
}
"""What became of an answer. Right is an exact match, or where exact match tells nothing, the dense model's choice of every token."""


def best_row(ledger: Ledger) -> Row | None:
    """Return the recovered row that keeps most over all prompts, the first of several; None where there is none."""
    shares = [(kept_overall(ledger, row), row) for row in ledger.recovered]
    known = [(share, row) for share, row in shares if np.isfinite(share)]
    return max(known, key=lambda one: one[0])[1] if known else None


def kept_overall(ledger: Ledger, row: Row, of: str = "dense") -> float:
    """Return a row's retention over all prompts, of the dense model's answers or of those of the dense model tuned alike ("tuned")."""
    table = ledger.overall
    return float(table.loc[table["row"] == row.title, f"retention_of_{of}"].iloc[0])


def headline(ledger: Ledger) -> str:
    """Return the finding: what the cut keeps, what the best way gives back, and how that stands beside the dense model tuned alike."""
    cut, best = kept_overall(ledger, ledger.rows[1]), best_row(ledger)
    what = (
        "the dense model's answers"
        if ledger.metric == "exact_match"
        else f"the dense model's {title_of(ledger.metric)}"
    )
    says = f"{sentence(_cut_words(ledger))} keeps {cut:.0%} of {what}."
    if best is None:
        return says
    says = f"{says} {_gain(ledger, best, cut)}"
    tuned = ledger.dense_tuned
    if tuned is None:
        return says
    of_tuned = kept_overall(ledger, best, "tuned")
    if not np.isfinite(of_tuned):
        return says
    return f"{says} Of the dense model tuned alike it keeps {of_tuned:.0%}."


def with_ends(table: pd.DataFrame, reference: str) -> list[str]:
    """Return each row's retention of "dense" or "tuned" with its interval, in words; "–" where it is not defined."""
    columns = [f"{name}_of_{reference}" for name in ("retention", "low", "high")]
    return [
        "–" if pd.isna(share) else f"{share:.0%}" if pd.isna(low) else f"{share:.0%} ({low:.0%} to {high:.0%})"
        for share, low, high in table[columns].itertuples(index=False)
    ]


def fresh_words(ledger: Ledger) -> str:
    """Return which prompts it reports on, and whether the cut was chosen on some of them."""
    n = len(ledger.shared[0].by_prompt)
    says = f"Measured on {counted(n, 'prompt')} that nothing was learnt on; learnt on {ledger.n_learnt_on} others."
    if not ledger.n_chosen_on:
        return says
    return f"{says} The cut was chosen on {ledger.n_chosen_on} of them, or on others with their pictures: that flatters it."


def returned(ledger: Ledger, row: Row) -> pd.DataFrame:
    """Return what became of each answer from the cut model to a recovered one, those that came back first.

    The columns of `answer_changes`, of the recovered model and the dense one, with `outcome` a key of `RETURNS`, and `cut_says`, what the
    cut model says, None where it is not known.
    """
    recovered = ledger.shared[ledger.rows.index(row)]
    dense, cut = ledger.shared[:2]
    changes = answer_changes(recovered, dense)
    before = answer_changes(cut, dense).set_index("id").loc[changes["id"]]
    if ledger.metric == "exact_match":
        was, had, has = changes["dense_exact"], before["edited_exact"], changes["edited_exact"]
    else:
        was = pd.Series(True, index=changes.index)
        had, has = before["token_agreement"] >= 1, changes["token_agreement"] >= 1
    one, two, three = (side.to_numpy(bool) for side in (was, had, has))
    outcome = np.select(
        [one & ~two & three, one & ~two & ~three, two & ~three, ~two & three, two & three],
        ["came back", "still lost", "broke", "gained", "kept"],
        "wrong",
    )
    says = [None if pd.isna(text) else text for text in before["edited_says"]]
    changes = changes.assign(outcome=outcome, cut_says=pd.Series(says, index=changes.index, dtype=object))
    order = changes["outcome"].map({name: place for place, name in enumerate(RETURNS)})
    return changes.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def _cut_words(ledger: Ledger) -> str:
    edit = ledger.edit
    if edit.is_mask:
        return f"without {counted(len(edit.dropped), 'layer')} of {edit.n_layers} the model"
    return "the edited model"


def _gain(ledger: Ledger, best: Row, cut: float) -> str:
    """Return what the best way gives back, with its interval, in a sentence."""
    kept = kept_overall(ledger, best)
    place = ledger.rows.index(best)
    found = paired_differences(ledger.shared[place], ledger.shared[1], ledger.shared[0], ledger.metric).iloc[-1]
    points = 100 * float(found["difference"])
    interval = ""
    if np.isfinite(found["low"]):
        interval = f" (90 % interval {100 * found['low']:+.0f} to {100 * found['high']:+.0f})"
    sure = not np.isfinite(found["low"]) or found["low"] > 0
    lost = 100 * (1 - cut)
    if points < 0 and lost <= 0:
        return f"It lost nothing that could come back: {best.title} it keeps {kept:.0%}."
    if points <= 0:
        return f"Nothing that was tried gives more back: {best.title} it keeps {kept:.0%}."
    doubt = "" if sure else ", which may be no difference"
    if lost <= 0:
        return f"{sentence(best.title)} it keeps {kept:.0%}; it had lost nothing."
    return f"{sentence(best.title)} it keeps {kept:.0%}: {points:.0f} of {lost:.0f} lost points come back{interval}{doubt}."
