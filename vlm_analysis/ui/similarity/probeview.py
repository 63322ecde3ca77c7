"""The probe of the answers: the job that measures it, and its curves beside Skip-It's other conditions."""

from __future__ import annotations

from hashlib import sha256

import pandas as pd
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.recording.answerprobe import AnswerProbe, part_lines
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.redundancy import probe_table
from vlm_analysis.ui.common.downloads import PICTURE, offer_table
from vlm_analysis.ui.common.inputs import missing_to_measure, prompts_of, say_missing
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pickers import open_or_stop
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, workspace
from vlm_analysis.ui.common.shell import say_set_aside
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import job
from vlm_analysis.words import counted, in_groups
from vlm_analysis.workbench.probes import find_probe
from vlm_analysis.workbench.workspace import Item

JOB = "probe"


def probe_of(recording: Recording) -> AnswerProbe | None:
    """Return the newest probe of the recording's model and prompts, in their groups and tasks; None where there is none."""
    prompts = prompts_of(recording)
    if prompts is None:
        return None
    shelf = workspace()
    ids = tuple(item.id for item in shelf.items("probes"))
    item = _found(str(shelf.root), ids, recording.model.fingerprint, prompts.id, prompts) if ids else None
    return None if item is None else open_or_stop(item)


@st.cache_resource(show_spinner=False, max_entries=8)
def _found(root: str, ids: tuple[str, ...], model: str, prompts: str, _item: Item) -> Item | None:
    """Return the Item of the probe; looked for once for the probes and prompts there are."""
    return find_probe(workspace(), model, _item)


def key_of(probe: AnswerProbe | None) -> str:
    """Return what tells a probe from others between script runs; "" for none."""
    return "" if probe is None else sha256(probe.log_loss.tobytes()).hexdigest()


def draw_probe(recording: Recording, probe: AnswerProbe | None, domain: str | None) -> None:
    """Draw the button that probes the answers where that was not done; else the curves, what they are of, and their numbers."""
    st.subheader("Where the answers can be read", anchor=False)
    if probe is None:
        st.markdown(
            "Two more of Skip-It's redundancies need a probe: how much better the answer can be told from the mean vision state behind a "
            "layer than before it. Probe the answers, and their curves stand here, those of text beside them."
        )
        _measure(recording)
    else:
        say_set_aside(probe.set_aside, len(probe.ids))
        try:
            _curves(recording, probe, domain)
        except StrataError as error:  # none of this domain's answers could be probed
            st.caption(escaped(error))
        _say_what_was_probed(probe)
    job_panel(JOB, "Nothing of it is kept: probe again.")


def _measure(recording: Recording) -> None:
    prompts, missing = prompts_of(recording), missing_to_measure(recording)
    if missing or prompts is None:
        say_missing(missing)
        return
    st.caption(
        f"One pass of {counted(recording.n_prompts, 'prompt')}, as long as recording them, then a ridge regression for each layer. It "
        "takes answers that five pictures or more have, and a task with two such answers."
    )
    st.button(
        "Probe the answers",
        icon=":material/quiz:",
        on_click=start,
        args=(JOB, f"Probing the answers of {prompts.name}", job(bench().measure_probe, prompts), prompts.id),
        disabled=(view := current(JOB)) is not None and view.active,
    )
    same_line(line_of("probe-answers", prompts))


def _curves(recording: Recording, probe: AnswerProbe, domain: str | None) -> None:
    from vlm_analysis.figures.probed import probe_curves

    table = _table(key_of(probe), domain, probe)
    st.plotly_chart(
        probe_curves(table, locks=recording.model.locks),
        key="probe-curves",
        config=PICTURE,
        alt="What each layer adds to how well the answer is told from vision and text states",
    )
    rows = probe.rows(domain)
    n_groups = len({probe.groups[row] for row in rows})
    st.caption(
        f"A ridge probe names the answer of {in_groups(len(rows), n_groups)} that it was not fitted on, from the mean state of the "
        "vision or the text tokens. Top: its accuracy behind the layer minus that before it, the functional redundancy. Below: its log "
        "loss before minus behind, in nats, an estimate of the informational one. Near 0 the layer adds nothing that such a probe "
        "reads; bands are 90 % intervals over groups."
    )
    with st.expander("Numbers of the probe"):
        offer_table(table.reset_index(), "answer-probe", alt="What the probe tells of each layer")


@st.cache_resource(show_spinner=False, max_entries=16)
def _table(key: str, domain: str | None, _probe: AnswerProbe) -> pd.DataFrame:
    return probe_table(_probe, domain=domain)


def _say_what_was_probed(probe: AnswerProbe) -> None:
    """Name the tasks, with their number of answers and what guessing gets; then what was left out and why."""
    with st.expander(f"What was probed: {counted(len(probe.parts), 'task')}"):
        st.markdown("\n\n".join(map(escaped, part_lines(probe))))
        for name, reason in probe.left_out.items():
            st.markdown(f"Left out — {escaped(f'{name}: {reason}')}")
