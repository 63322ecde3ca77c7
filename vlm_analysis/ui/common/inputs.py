"""What layers are scored from, on the Masks page and under Explain: the recording, measured damage, and each criterion's options."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.errors import StrataError
from vlm_analysis.model_info import Locks, ModelInfo
from vlm_analysis.recording.measures import DELTAS, SHARES
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.criteria import CRITERIA, DEFAULTS
from vlm_analysis.selection.criteria.damage import Damage, read_damage
from vlm_analysis.selection.criteria.scoring import usable_criteria
from vlm_analysis.ui.common.editor import locked_by_user
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.ui.common.shell import go_on
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import total_of_domains
from vlm_analysis.workbench.damages import find_damage
from vlm_analysis.workbench.workspace import Item

CHOSEN = "candidate_criteria"
SEEDS = 10_000


@dataclass(frozen=True, eq=False)
class ScoreInputs:
    """What scores are computed from on this page.

    Attributes:
        group: the token group chosen on the page.
        damage: the measured damage of each layer on the recording's prompts; None where it was not measured.
        problem: why stored damage cannot be read; "".
    """

    recording: Recording
    group: str
    damage: Damage | None
    problem: str = ""

    @property
    def locks(self) -> Locks:
        """Return the layers that stay, with their reasons."""
        return self.recording.model.locks.keeping(locked_by_user(), unprotect=unprotected())

    @property
    def free(self) -> list[int]:
        """Return the layers that may go."""
        return self.locks.free

    @property
    def numbers_key(self) -> str:
        """Return what the recorded numbers and the damage depend on, as text."""
        recording, damage = self.recording, self.damage
        damage_text = "" if damage is None else f"{damage.prompts} {damage.measured.tobytes().hex()}"
        own = f"{recording.model.fingerprint} {recording.prompts} {sorted(recording.set_aside)} {recording.settings}"
        return f"{own} {self.group} {damage_text}"

    @property
    def key(self) -> str:
        """Return everything that scores depend on, as text: the key by which they are kept between script runs."""
        return f"{self.numbers_key} {self.locks.reasons}"

    def reasons(self) -> dict[str, str]:
        """Return every criterion with "" where it can be used, else why not."""
        return _reasons(self.key, self)

    def usable(self) -> list[str]:
        return [criterion for criterion, reason in self.reasons().items() if not reason]


@st.cache_resource(show_spinner=False, max_entries=32)
def _reasons(key: str, _inputs: ScoreInputs) -> dict[str, str]:
    return usable_criteria(_inputs.recording, damage=_inputs.damage, token_group=_inputs.group)


def unprotected() -> bool:
    """Return whether protected layers may go too, as the editor's switch says."""
    return bool(st.session_state.get("mask_unprotect"))


def gather(recording: Recording, group: str) -> ScoreInputs:
    """Return the inputs of the tabs, with the stored damage of the recording's model and prompts."""
    shelf = workspace()
    sweeps = tuple(item.id for item in shelf.items("sweeps"))
    try:
        return ScoreInputs(recording, group, _damage(str(shelf.root), sweeps, recording.prompts, recording.model))
    except StrataError as error:
        return ScoreInputs(recording, group, None, str(error))


@st.cache_resource(show_spinner=False, max_entries=4, hash_funcs={ModelInfo: lambda model: model.fingerprint})
def _damage(root: str, sweeps: tuple[str, ...], prompts: str, model: ModelInfo) -> Damage | None:
    """Return the damage as stored; read once for the sweeps there are."""
    evaluations = find_damage(workspace(), model.fingerprint, prompts)
    return read_damage(evaluations, model) if evaluations else None


def prompts_of(recording: Recording) -> Item | None:
    """Return the saved prompt set that was recorded; None where the workspace has none."""
    return next((item for item in workspace().items("prompts") if item.prompts == recording.prompts), None)


def model_is_here(recording: Recording) -> bool:
    return bool(recording.model.fingerprint == model_slot().fingerprint)


def missing_to_measure(recording: Recording, *, own_prompts: bool = False) -> str:
    """Return what is missing to measure on the recording's model and prompts, with the way to it; "" where nothing is.

    With `own_prompts` what is measured is on other prompts, and the recorded ones need not be saved.
    """
    missing = []
    if not model_is_here(recording):
        name, start = escaped(recording.model.name), recording.model.fingerprint[:8]
        missing.append(f"the recording's model, {name} ({start}): load it on the Model page")
    if not own_prompts and prompts_of(recording) is None:
        missing.append(f"the recorded prompts ({recording.prompts[:8]}): add them on the Prompts page")
    return f"Measuring needs {' and '.join(missing)}." if missing else ""


def say_missing(missing: str) -> None:
    """Draw what is missing to measure, with the pages where it is had."""
    st.info(missing, icon=":material/arrow_forward:")
    for word, page in (("Model page", "pages/1_model.py"), ("Prompts page", "pages/2_prompts.py")):
        if word in missing:
            go_on(page, f"Go to the {word}")


def pick_domain(
    recording: Recording,
    label: str,
    key: str,
    help_text: str,
    container: DeltaGenerator | None = None,
    every: str = "all domains",
) -> str | None:
    """Draw the choice of a domain or all of them (None)."""
    choices = ["", *recording.domain_names]  # Streamlit draws None as nothing chosen
    every = total_of_domains(recording.domain_names, every)
    forget_unknown(key, choices)
    picked = (container or st).selectbox(
        label, choices, format_func=lambda name: name or every, key=key, persist_state="session", help=help_text
    )
    return picked or None


def layers_slider(inputs: ScoreInputs, container: DeltaGenerator | None = None) -> int:
    """Draw the slider of a budget in layers, the same wherever it is asked."""
    n_layers, free = inputs.recording.n_layers, len(inputs.free)
    most = max(2, min(free, n_layers - 1))
    remembered("candidate_budget", 3, 1, most)
    return int(
        (container or st).slider(
            "Budget: layers to drop",
            1,
            most,
            key="candidate_budget",
            persist_state="session",
            help=f"Of {n_layers}; {free} may go.",
        )
    )


def remembered(key: str, default: int, least: int, most: int) -> None:
    """Keep a slider's number within what this model allows; its default the first time."""
    value = min(max(int(st.session_state.get(key, default)), least), most)
    if st.session_state.get(key) != value:
        st.session_state[key] = value


# --- the options of criteria and strategies ------------------------------------------------------------------------


def choose_criteria(inputs: ScoreInputs) -> list[str]:
    """Draw the choice of criteria; those that cannot be used here are listed with the reason."""
    reasons = inputs.reasons()
    usable = [criterion for criterion, reason in reasons.items() if not reason]
    if CHOSEN in st.session_state:
        st.session_state[CHOSEN] = [criterion for criterion in st.session_state[CHOSEN] if criterion in usable]
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    right.button(
        "All criteria",
        on_click=lambda: st.session_state.update({CHOSEN: usable}),
        width="stretch",
        help=f"All {len(usable)} criteria that can be used here.",
    )
    picked = left.multiselect(
        "Criteria",
        usable,
        default=None if CHOSEN in st.session_state else [key for key in DEFAULTS if key in usable],
        format_func=lambda key: CRITERIA[key].title,
        key=CHOSEN,
        persist_state="session",
        help="What each computes stands on the Similarity page, under Explain.",
        placeholder="Choose at least one",
    )
    refused = {criterion: reason for criterion, reason in reasons.items() if reason}
    if refused:
        with st.expander(f"{len(refused)} of {len(reasons)} criteria cannot be used here, and why"):
            for criterion, reason in refused.items():
                st.markdown(f"**{CRITERIA[criterion].title}** — {escaped(reason)}")
    return [criterion for criterion in usable if criterion in picked]


def taken(criteria: Iterable[str]) -> set[str]:
    """Return the arguments that change at least one of the criteria."""
    return {name for criterion in criteria for name in CRITERIA[criterion].takes}


def ask_options(inputs: ScoreInputs, names: Collection[str]) -> dict[str, Any]:
    """Draw a control for each named argument of `score_layers`, and return what was chosen, the token group included."""
    controls = [name for name in _CONTROLS if name in names and not (name == "other" and _one_domain(inputs))]
    chosen: dict[str, Any] = {"token_group": inputs.group}
    for start in range(0, len(controls), 3):
        columns = st.columns(3)
        for name, container in zip(controls[start : start + 3], columns, strict=False):
            chosen[name] = _CONTROLS[name](container, inputs.recording)
    if chosen.get("other") == chosen.get("target", ""):
        chosen["other"] = None
    return chosen


def _one_domain(inputs: ScoreInputs) -> bool:
    return len(inputs.recording.domain_names) < 2


def _target(container: DeltaGenerator, recording: Recording) -> Any:
    forget_unknown("candidate_target", recording.domain_names)
    return container.selectbox(
        "Target domain",
        recording.domain_names,
        key="candidate_target",
        persist_state="session",
        help="The domain whose answers should survive.",
    )


def _weight(container: DeltaGenerator, recording: Recording) -> Any:
    return container.slider(
        "Weight w in the mixed criteria",
        0.0,
        1.0,
        0.7,
        0.05,
        key="candidate_weight",
        persist_state="session",
        help="“Mixed, weight on the others” gives it to the others, as arXiv:2603.20275 does with 0.7; “weight on the target” is ours.",
    )


def _domain(container: DeltaGenerator, recording: Recording) -> Any:
    return pick_domain(
        recording,
        "Prompts that count",
        "candidate_domain",
        "For criteria and strategies that compare no domains.",
        container,
    )


def _other(container: DeltaGenerator, recording: Recording) -> Any:
    words = "The second domain of “Contrast of domains”; the target itself counts as all but the target."
    return pick_domain(recording, "Contrast with", "candidate_other", words, container, "all but the target")


def _share(container: DeltaGenerator, recording: Recording) -> Any:
    return container.select_slider(
        "Share of tokens taken as important",
        SHARES,
        0.5,
        format_func=lambda share: f"{share:.0%}",
        key="candidate_share",
        persist_state="session",
        help="The tokens that get most attention, in “Similarity of important tokens”. The paper names no share.",
    )


def pick_delta(container: DeltaGenerator, key: str, help: str) -> Any:
    """Draw the choice of δ among those that are recorded."""
    return container.select_slider(
        "δ: a token counts as changed from 1 − cosine",
        DELTAS,
        0.05,
        format_func=lambda delta: f"{delta:g}",
        key=key,
        persist_state="session",
        help=help,
    )


def _delta(container: DeltaGenerator, recording: Recording) -> Any:
    words = "In “Proximal redundancy of vision”: δ is a cosine distance, without unit."
    return pick_delta(container, "candidate_delta", words)


def _seed(container: DeltaGenerator, recording: Recording) -> Any:
    return container.number_input(
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


def forget_unknown(key: str, choices: Collection[Any]) -> None:
    """Forget a choice that this recording does not offer."""
    if key in st.session_state and st.session_state[key] not in choices:
        del st.session_state[key]
