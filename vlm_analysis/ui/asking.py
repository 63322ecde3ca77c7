"""What the Masks page's tabs ask the rankings: the recording, the damage measured for it, and each criterion's own options."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.errors import StrataError
from vlm_analysis.masks.make import free_layers
from vlm_analysis.measures import DELTAS, SHARES
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.rank import CRITERIA, Damage, read_damage, usable_criteria
from vlm_analysis.recording import Recording
from vlm_analysis.ui.session import model_slot, workspace
from vlm_analysis.ui.text import escaped
from vlm_analysis.ui.work import find_damage
from vlm_analysis.workspace import Item

DEFAULTS = (
    "block-influence",
    "target-aware",
    "mixed",
    "worst-case",
    "important-tokens",
    "linear-cka",
    "cross-modal",
    "damage-kl",
)
SEEDS = 10_000


@dataclass(frozen=True, eq=False)
class Ranked:
    """What rankings are made of on this page.

    Attributes:
        group: the token group chosen on the page.
        damage: what leaving out each layer did on the recording's prompts; None where it was not measured.
        problem: why stored damage cannot be read; "".
    """

    recording: Recording
    group: str
    damage: Damage | None
    problem: str = ""

    @property
    def staying(self) -> dict[str, Any]:
        """Return the layers that no ranking may drop, as `make_mask` takes them."""
        model = self.recording.model
        return {"protected": {} if unprotected() else model.protected, "locked": model.locked}

    @property
    def free(self) -> list[int]:
        """Return the layers that may go."""
        return free_layers(self.recording.n_layers, **self.staying)

    def reasons(self) -> dict[str, str]:
        """Return every criterion with "" where it can be used, else why not."""
        return usable_criteria(self.recording, damage=self.damage, token_group=self.group)

    def usable(self) -> list[str]:
        return [criterion for criterion, reason in self.reasons().items() if not reason]


def unprotected() -> bool:
    """Return whether protected layers may go too, as the editor's switch says."""
    return bool(st.session_state.get("mask_unprotect"))


def gather(recording: Recording, group: str) -> Ranked:
    """Return what the tabs rank with, the stored damage of the recording's model and prompts included."""
    shelf = workspace()
    sweeps = tuple(item.id for item in shelf.items("sweeps"))
    try:
        return Ranked(recording, group, _damage(str(shelf.root), sweeps, recording.prompts, recording.model))
    except StrataError as error:
        return Ranked(recording, group, None, str(error))


@st.cache_resource(show_spinner=False, max_entries=4, hash_funcs={ModelInfo: lambda model: model.fingerprint})
def _damage(root: str, sweeps: tuple[str, ...], prompts: str, model: ModelInfo) -> Damage | None:
    """Return the damage as stored; read once for the sweeps there are."""
    found = find_damage(model.fingerprint, prompts)
    return read_damage(found, model) if found else None


def prompts_of(recording: Recording) -> Item | None:
    """Return the saved prompt set that was recorded; None where the workspace has none."""
    return next((item for item in workspace().items("prompts") if item.prompts == recording.prompts), None)


def model_is_here(recording: Recording) -> bool:
    return bool(recording.model.fingerprint == model_slot().fingerprint)


def missing_to_measure(recording: Recording) -> str:
    """Return what is missing to measure on the recording's model and prompts, with the way to it; "" where nothing is."""
    missing = []
    if not model_is_here(recording):
        name, start = escaped(recording.model.name), recording.model.fingerprint[:8]
        missing.append(f"the recording's model, {name} ({start}): load it on the Model page")
    if prompts_of(recording) is None:
        missing.append(f"the recorded prompts ({recording.prompts[:8]}): add them on the Prompts page")
    return f"Measuring needs {' and '.join(missing)}." if missing else ""


# --- the options of criteria and strategies ------------------------------------------------------------------------


def taken(criteria: Iterable[str]) -> set[str]:
    """Return the arguments that change at least one of the criteria."""
    return {name for criterion in criteria for name in CRITERIA[criterion].takes}


def ask_options(ranked: Ranked, names: Collection[str]) -> dict[str, Any]:
    """Draw a control for each named argument of `score_layers`, and return what was chosen, the token group included."""
    drawn = [name for name in _CONTROLS if name in names and not (name == "other" and _one_domain(ranked))]
    chosen: dict[str, Any] = {"token_group": ranked.group}
    for start in range(0, len(drawn), 3):
        columns = st.columns(3)
        for name, place in zip(drawn[start : start + 3], columns, strict=False):
            chosen[name] = _CONTROLS[name](place, ranked.recording)
    if chosen.get("other") == chosen.get("target", ""):
        chosen["other"] = None
    return chosen


def _one_domain(ranked: Ranked) -> bool:
    return len(ranked.recording.domain_names) < 2


def _target(place: DeltaGenerator, recording: Recording) -> Any:
    _forget_unknown("candidate_target", recording.domain_names)
    return place.selectbox(
        "Target domain",
        recording.domain_names,
        key="candidate_target",
        persist_state="session",
        help="The domain whose answers should survive.",
    )


def _weight(place: DeltaGenerator, recording: Recording) -> Any:
    return place.slider(
        "Weight w in the mixed criteria",
        0.0,
        1.0,
        0.7,
        0.05,
        key="candidate_weight",
        persist_state="session",
        help="“Mixed” gives it to the target, “Mixed, weight on the others” to the others. 0.7 in arXiv:2603.20275.",
    )


def _domain(place: DeltaGenerator, recording: Recording) -> Any:
    choices = [None, *recording.domain_names]
    _forget_unknown("candidate_domain", choices)
    return place.selectbox(
        "Prompts that count",
        choices,
        format_func=lambda name: name or "all domains",
        key="candidate_domain",
        persist_state="session",
        help="For criteria and strategies that compare no domains.",
    )


def _other(place: DeltaGenerator, recording: Recording) -> Any:
    choices = [None, *recording.domain_names]
    _forget_unknown("candidate_other", choices)
    return place.selectbox(
        "Contrast with",
        choices,
        format_func=lambda name: name or "all but the target",
        key="candidate_other",
        persist_state="session",
        help="The second domain of “Contrast of domains”; the target itself counts as all but the target.",
    )


def _share(place: DeltaGenerator, recording: Recording) -> Any:
    return place.select_slider(
        "Share of tokens taken as important",
        SHARES,
        0.5,
        format_func=lambda share: f"{share:.0%}",
        key="candidate_share",
        persist_state="session",
        help="The tokens that get most attention, in “Similarity of important tokens”. The paper names no share.",
    )


def _delta(place: DeltaGenerator, recording: Recording) -> Any:
    return place.select_slider(
        "δ: a token counts as changed from 1 − cosine",
        DELTAS,
        0.05,
        format_func=lambda delta: f"{delta:g}",
        key="candidate_delta",
        persist_state="session",
        help="In “Proximal redundancy of vision”: δ is a cosine distance, without unit.",
    )


def _seed(place: DeltaGenerator, recording: Recording) -> Any:
    return place.number_input(
        "Seed",
        0,
        SEEDS,
        0,
        key="candidate_seed",
        persist_state="session",
        help="The same seed draws the same layers, and the same prompts for every spread.",
    )


_CONTROLS = {
    "target": _target,
    "weight": _weight,
    "other": _other,
    "domain": _domain,
    "share": _share,
    "delta": _delta,
    "seed": _seed,
}


def _forget_unknown(key: str, choices: Collection[Any]) -> None:
    """Forget a choice that this recording does not offer."""
    if key in st.session_state and st.session_state[key] not in choices:
        del st.session_state[key]
