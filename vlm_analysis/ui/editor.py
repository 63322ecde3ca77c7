"""The mask editor: heatmap clicks, pills, candidates, undo and redo all change one mask in the session."""

from __future__ import annotations

import numpy as np
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.masks import STRATEGIES, PruneMask, make_mask
from vlm_analysis.rank import CRITERIA, LayerScores, score_layers
from vlm_analysis.recording import Recording
from vlm_analysis.story import domain_rows
from vlm_analysis.ui.session import last_choices
from vlm_analysis.ui.text import escaped, layer_list

HEATMAP, PILLS, CANDIDATES = "mask_heatmap", "mask_pills", "mask_candidates"
MOST_UNDO = 100


def begin_editing(recording: Recording) -> None:
    """Start with the mask last edited for this model, also after a refresh; an empty one where there is none."""
    if st.session_state.get("mask_model") != recording.model:
        kept = list(last_choices().get(f"mask:{recording.model.fingerprint}", []))
        st.session_state.update(mask=kept, mask_undo=[], mask_redo=[], mask_name="", mask_notes="")
        st.session_state.update({"mask_model": recording.model, "mask_origin": {}, CANDIDATES: {}})


def take_mask(mask: PruneMask) -> None:
    """Take a candidate or saved mask into the editor, remembering where it came from."""
    set_mask(mask.dropped)
    st.session_state.mask_origin = {"name": mask.name, "dropped": list(mask.dropped), **mask.provenance}


def set_mask(layers: list[int] | tuple[int, ...]) -> None:
    """Change the mask, remembering the old one for undo; locked layers never enter it."""
    locked = st.session_state.mask_model.locked
    new = sorted(set(layers) - set(locked))
    if len(new) == st.session_state.mask_model.n_layers:
        st.toast("At least one layer must stay.", icon=":material/block:")
        return
    if new != st.session_state.mask:
        st.session_state.mask_undo = [*st.session_state.mask_undo, st.session_state.mask][-MOST_UNDO:]
        st.session_state.mask_redo = []
        _put(new)


def _put(layers: list[int]) -> None:
    st.session_state.mask = layers
    last_choices()[f"mask:{st.session_state.mask_model.fingerprint}"] = layers


def undo() -> None:
    """Go back to the mask before the last change."""
    if st.session_state.mask_undo:
        st.session_state.mask_redo.append(st.session_state.mask)
        _put(st.session_state.mask_undo.pop())


def redo() -> None:
    """Take the last undo back."""
    if st.session_state.mask_redo:
        st.session_state.mask_undo.append(st.session_state.mask)
        _put(st.session_state.mask_redo.pop())


def toggle_points(points: list[dict[str, object]]) -> None:
    """Toggle the layers of clicked cells; protected ones only when they are unlocked."""
    model = st.session_state.mask_model
    open_layers = set(range(model.n_layers)) - set(model.locked)
    if not st.session_state.get("mask_unprotect"):
        open_layers -= set(model.protected)
    clicked = {int(str(point["x"])) for point in points if str(point.get("x", "")).isdigit()}
    if clicked - open_layers:
        st.toast(
            f"Layer {layer_list(sorted(clicked - open_layers))} is protected. Unlock it below the heatmap.",
            icon=":material/lock:",
        )
    set_mask(sorted(set(st.session_state.mask) ^ (clicked & open_layers)))


def _heatmap_clicked() -> None:
    st.session_state.mask_clicks = st.session_state.get("mask_clicks", 0) + 1
    toggle_points(st.session_state[HEATMAP]["selection"]["points"])


def editor(recording: Recording, group: str) -> None:
    """Draw heatmap, pills and buttons."""
    from vlm_analysis.figures import similarity_heatmap

    model, dropped = recording.model, list(st.session_state.mask)
    figure = similarity_heatmap(
        domain_rows(recording, group),
        recording.domain_names,
        dropped=dropped,
        protected=model.protected,
        locked=model.locked,
        clickable=True,
        revision=st.session_state.get("mask_clicks", 0),
    )
    st.plotly_chart(
        figure, key=HEATMAP, on_select=_heatmap_clicked, selection_mode="points", config={"displayModeBar": False}
    )
    st.caption("Click a cell to drop its layer, or to take it back. P marks protected layers.")
    left, middle, right, state = st.columns([1, 1, 1, 4], vertical_alignment="center")
    left.button("Undo", icon=":material/undo:", on_click=undo, disabled=not st.session_state.mask_undo, width="stretch")
    middle.button(
        "Redo", icon=":material/redo:", on_click=redo, disabled=not st.session_state.mask_redo, width="stretch"
    )
    right.button(
        "Clear", icon=":material/restart_alt:", on_click=set_mask, args=([],), disabled=not dropped, width="stretch"
    )
    state.markdown(f"**{len(dropped)}** of {model.n_layers} layers dropped: {layer_list(dropped)}")
    _pills(recording, dropped)


def _pills(recording: Recording, dropped: list[int]) -> None:
    model = recording.model
    unprotect = st.toggle(
        "Let protected layers go too",
        key="mask_unprotect",
        help="First, last and DeepStack layers: dropping them mostly breaks the model.",
    )
    staying = set(model.locked) | (set() if unprotect else set(model.protected) - set(dropped))
    st.session_state[PILLS] = dropped
    st.pills(
        "Layers to drop",
        [layer for layer in range(model.n_layers) if layer not in staying],
        selection_mode="multi",
        key=PILLS,
        on_change=lambda: set_mask(st.session_state[PILLS]),
        help="Click a number here, or a cell above.",
    )


# --- candidates ----------------------------------------------------------------------------------------------------


def candidates(recording: Recording, group: str) -> dict[str, PruneMask]:
    """Draw the choice of strategy, budget and target; returns each criterion's mask, by its name on screen."""
    model = recording.model
    free = model.n_layers - len(set(model.protected) | set(model.locked))
    left, middle, right = st.columns(3)
    strategy = left.selectbox(
        "Strategy",
        [key for key, row in STRATEGIES.items() if row.needs == "scores"],
        format_func=lambda key: STRATEGIES[key].title,
        key="candidate_strategy",
        persist_state="session",
        help="How scores become a mask",
    )
    budget = middle.slider(
        "Budget: layers to drop",
        1,
        max(2, free),
        min(3, free),
        key="candidate_budget",
        persist_state="session",
        help=f"Of {model.n_layers}; {free} may go.",
    )
    target = right.selectbox(
        "Target domain",
        recording.domain_names,
        key="candidate_target",
        persist_state="session",
        help="The domain whose answers should survive.",
    )
    weight = st.slider(
        "Weight of the target in “Mixed”",
        0.0,
        1.0,
        0.7,
        0.05,
        key="candidate_weight",
        persist_state="session",
        help="0.7 in arXiv:2603.20275.",
    )
    made, refused = {}, []
    for criterion, row in CRITERIA.items():
        if row.needs == "damage":  # nothing on this page measures it
            continue
        try:
            scores = score_layers(recording, criterion, target=target, weight=weight, token_group=group)
            mask = make_mask(scores, strategy, budget, protected=model.protected, locked=model.locked)
            made[row.title] = mask
        except StrataError as error:
            refused.append(f"{row.title}: {error}")
    for reason in refused:
        st.caption(escaped(reason))
    st.session_state[CANDIDATES] = made
    return made


def strips(made: dict[str, PruneMask], recording: Recording) -> None:
    """Draw the candidate masks and the edited one as strips, and what each criterion is."""
    from vlm_analysis.figures import mask_strips

    rows = [("in the editor", tuple(st.session_state.mask)), *((name, mask.dropped) for name, mask in made.items())]
    figure = mask_strips(rows, recording.n_layers, protected=recording.model.protected, locked=recording.model.locked)
    st.plotly_chart(figure, key="candidate-strips", config={"displayModeBar": False})
    with st.expander("What the criteria compute"):
        for row in CRITERIA.values():
            st.markdown(f"**{row.title}** — {row.source}")
            st.text(f"{row.formula}; the {row.drop} go first")


def score_picture(recording: Recording, group: str) -> None:
    """Draw one criterion's score of every layer with its spread over prompts."""
    from vlm_analysis.figures import score_bars

    measured = [key for key, row in CRITERIA.items() if row.values is not None and row.needs != "damage"]
    criterion = st.selectbox("Criterion", measured, format_func=lambda key: CRITERIA[key].title, key="score_criterion")
    try:
        scores = score_layers(
            recording,
            criterion,
            target=st.session_state.get("candidate_target"),
            weight=st.session_state.get("candidate_weight", 0.7),
            token_group=group,
        )
    except StrataError as error:
        st.caption(escaped(error))
        return
    free = [layer for layer in range(recording.n_layers) if layer not in recording.model.protected]
    figure = score_bars(
        scores.values,
        scores.spread,
        scores.order,
        st.session_state.mask,
        recording.model.protected,
        y_title=CRITERIA[criterion].title,
        scale=_reach(scores, free),
    )
    st.plotly_chart(figure, key="score-bars", config={"displayModeBar": False})
    st.caption(
        f"{CRITERIA[criterion].formula}; the {scores.drop} go first. The axis fits the layers that may go. "
        f"Whiskers: standard deviation when the prompts are drawn "
        f"again with replacement, within each domain. {_apart(scores)}"
    )


def _reach(scores: LayerScores, free: list[int]) -> tuple[float, float] | None:
    """Return the ends of the axis that show the layers that may go with their spread; protected ones may reach beyond."""
    ends = np.concatenate([scores.values[free] - scores.spread[free], scores.values[free] + scores.spread[free], [0.0]])
    ends = ends[np.isfinite(ends)]
    low, high = float(ends.min()), float(ends.max())
    return (low, high + 0.05 * (high - low)) if high > low else None


def _apart(scores: LayerScores) -> str:
    """Return whether the first two of the drop order can be told apart with these prompts."""
    if len(scores.order) < 2:
        return ""
    first, second = scores.order[:2]
    gap = abs(scores.values[first] - scores.values[second])
    noise = float(np.hypot(scores.spread[first], scores.spread[second]))
    if np.isnan(noise):
        return ""
    if gap > 2 * noise:
        return f"Layer {first} leads by more than twice the spread."
    return f"Layers {first} and {second} cannot be told apart with these prompts."
