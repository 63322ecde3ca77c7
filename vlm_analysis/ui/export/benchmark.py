"""The Export page's benchmark: saved prompts as a task of lm-evaluation-harness and lmms-eval, with the commands to run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.export.harness import export_task
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pickers import open_or_stop, pick_item
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import model_slot
from vlm_analysis.ui.common.shell import next_step
from vlm_analysis.ui.common.work import job
from vlm_analysis.ui.export.exportview import default_folder, free_folder, shortened
from vlm_analysis.words import counted

JOB = "export-task"


def benchmark(mask: Edit) -> None:
    """Draw the form that writes saved prompts as a task, and the commands of the one that was written last."""
    item = pick_item("prompts", "Prompts", "Those with an answer are asked; the rest is left out.")
    if item is None:
        next_step("A task is made of prompts, and there are none yet.", "pages/2_prompts.py", "Add prompts")
        return
    left, right = st.columns(2)
    name = left.text_input("Name of the task", "own_prompts", max_chars=80, help="Letters, digits and underscores.")
    folder = right.text_input(
        "Folder of the task",
        shortened(free_folder("task")),
        help="On the machine Strata runs on. It must not hold anything.",
    )
    matches = st.checkbox(
        "Normalised and numeric match too",
        help="Scored by Strata's own functions, as no YAML can say them: Strata must be installed where the harness runs.",
    )
    options = {"name": name.strip(), "matches": matches, **_models(mask)}
    active = (view := current(JOB)) is not None and view.active
    if st.button("Write the task", icon=":material/checklist:", disabled=active or not folder.strip()):
        work = job(export_task, open_or_stop(item), Path(folder.strip()), **options)
        start(JOB, f"Writing {name.strip()}", work, item.id, folder.strip(), options)
        st.rerun()
    if folder.strip():
        same_line(line_of("export-task", item, folder.strip(), model=False, **options))
    done = job_panel(JOB)
    if done is not None and done.status == "done":
        task = done.result
        left_out = f"; {counted(len(task.left_out), 'prompt')} without an answer left out" if task.left_out else ""
        st.text(f"{counted(task.n_prompts, 'prompt')} written to {shortened(task.folder)}{left_out}.")
        st.caption("For the dense model, then for the exported one. README.md in the folder says what is scored.")
        st.code("\n".join(task.commands), language="bash", wrap_lines=True)


def _models(mask: Edit) -> dict[str, Any]:
    """Return the models and the precision of the commands: the loaded one, and the folder that was exported last or will be."""
    slot = model_slot()
    if slot.info is None:
        return {}
    exported = current("export")
    is_done = exported is not None and exported.status == "done"
    edited = exported.result[1] if exported is not None and is_done else default_folder(slot.info.name, mask)
    return {"dense": slot.arguments[0], "edited": str(Path(edited).expanduser()), "dtype": slot.info.dtype}
