"""The Similarity page's Explain tab: what the criteria make of a recording, how far they agree, and where they mislead."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.ui.common.editor import begin_editing
from vlm_analysis.ui.common.inputs import gather
from vlm_analysis.ui.common.text import NEEDS, escaped
from vlm_analysis.ui.similarity.damageview import damage_view
from vlm_analysis.ui.similarity.rankview import agreement_view, score_picture
from vlm_analysis.ui.similarity.skipview import skip_view

VIEWS = {
    "Scores": score_picture,
    "Agreement": agreement_view,
    "Against damage": damage_view,
    "Skip-It": skip_view,
}
ABOUT = {
    "Scores": "One criterion's score of every layer, and how sure its order is.",
    "Agreement": "How alike rankings are.",
    "Against damage": "Cosine beside what leaving out a layer does to the answers.",
    "Skip-It": "Where vision tokens change little and are little looked at, and what skipping there does.",
}


def explain(recording: Recording, group: str) -> None:
    """Draw the chosen view of how layers are scored, then what criteria and strategies compute, in words."""
    begin_editing(recording.model)  # locks and the mask in the editor are drawn into the pictures
    view = st.segmented_control(
        "Explain",
        list(VIEWS),
        default="Scores",
        required=True,
        key="explain_view",
        persist_state="session",
        help=" ".join(f"**{name}**: {about}" for name, about in ABOUT.items()),
    )
    VIEWS[view](gather(recording, group))
    _criteria_in_words()


def _criteria_in_words() -> None:
    """Draw the table of criteria and that of strategies in words: formula, source, what each needs and takes."""
    with st.expander("What the criteria compute"):
        st.caption(
            "x enters layer l, y leaves it, m stands between attention and MLP; z is a score standardised over the layers, "
            "s_d(l) the mean cosine over the prompts of domain d."
        )
        rows = [
            f"**{escaped(row.title)}** — {escaped(row.source)}  \n{escaped(row.formula)}; the {row.drop} go first. "
            f"Needs {NEEDS[row.needs]}."
            for row in CRITERIA.values()
        ]
        st.markdown("\n\n".join(rows))  # one element: fifty would slow every click on the page
    with st.expander("What the strategies do"):
        rows = [
            f"**{escaped(row.title)}** — {escaped(row.source)}  \nNeeds {NEEDS[row.needs]}."
            + (f" Takes {', '.join(row.takes).replace('_', ' ')}." if row.takes else "")
            for row in STRATEGIES.values()
        ]
        st.markdown("\n\n".join(rows))
