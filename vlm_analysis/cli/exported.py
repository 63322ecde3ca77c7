"""Turn what was exported, and what a server answers to its probe, into a Result. Opens without torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from vlm_analysis.cli.output import Result
from vlm_analysis.cli.results import grid
from vlm_analysis.export.probe.compare import ProbeResult
from vlm_analysis.export.serving.rules import Served
from vlm_analysis.words import counted

if TYPE_CHECKING:
    from vlm_analysis.export.checkpoint import Manifest
    from vlm_analysis.export.harness import ExportedTask

MODULE_FILE = "strata_vision.py"  # as export.shipped names it, which imports torch


def of_manifest(manifest: Manifest, folder: Path, served: Sequence[Served], probe: str) -> Result:
    """Return what was exported, its proof, which engines load it, and what its probe tells."""
    lines = [f"Written to {folder}: {manifest.n_layers_after} of {manifest.n_layers_before} layers."]
    skips = (folder / MODULE_FILE).is_file()
    if skips:
        lines.append(
            f"Vision tokens skip layers where {MODULE_FILE} loads it; plain transformers alone runs all of them."
        )
    if manifest.verified:
        module = f" and {MODULE_FILE}" if skips else ""
        lines.append(
            f"Loaded in a fresh process by plain transformers {manifest.transformers_version}{module}: logits over "
            f"{counted(manifest.probe_tokens, 'token')} and a greedy answer are equal to the last bit."
        )
    lines += engine_lines(served)
    if probe:
        line = shlex.join(["strata", "probe", "http://127.0.0.1:8000", "--export", str(folder)])
        lines.append(f"Its probe holds {probe}. Ask a server that serves it: {line}")
    data = {"folder": str(folder), **asdict(manifest), "serving": [asdict(one) for one in served], "probe": probe}
    plain = {key: str(value) for key, value in asdict(manifest).items()}
    return Result("Export", "\n".join(lines), data, pd.DataFrame(plain.items(), columns=["what", "value"]))


def engine_lines(served: Sequence[Served]) -> list[str]:
    """Return what each engine does with an export; a sentence that the reasons of all but the proved one begin with stands once, first."""
    reasons = [one.reason for one in served if not one.run_here]
    first = f"{reasons[0].partition('. ')[0]}. " if len(reasons) > 1 else ""
    shared = first if first and all(reason.startswith(first) for reason in reasons) else ""
    lines = [f"Of all engines: {shared.strip()}"] if shared else []
    for one in served:
        reason = one.reason if one.run_here else one.reason.removeprefix(shared).lstrip()
        lines.append(f"{one.engine} {one.version}: {one.verdict}. {reason}")
    return lines


def of_probe(found: ProbeResult) -> Result:
    """Return how a server answers a probe: one row per prompt."""
    rows = [(one.id, one.verdict, one.expected, one.got, one.difference, ", ".join(one.like)) for one in found.prompts]
    table = pd.DataFrame(rows, columns=["id", "verdict", "expected", "got", "difference", "like"])
    lines = [
        f"{found.url}{f', model {found.model}' if found.model else ''}: {found.verdict}.",
        *found.reasons,
        f"What it could tell: {found.tells}.",
        grid(table[["id", "verdict", "expected", "got"]]),
    ]
    return Result("Probe", "\n".join(lines), asdict(found), table)


def of_task(task: ExportedTask) -> Result:
    """Return where a task was written, what was left out, and its commands, one a row."""
    left_out = f", {counted(len(task.left_out), 'prompt')} without an answer left out" if task.left_out else ""
    text = f"{task.name}: {counted(task.n_prompts, 'prompt')} written to {task.folder}{left_out}"
    data = {
        "folder": str(task.folder),
        "name": task.name,
        "n_prompts": task.n_prompts,
        "left_out": list(task.left_out),
        "commands": list(task.commands),
    }
    return Result("Task", "\n".join([text, "", *task.commands]), data, pd.DataFrame({"command": task.commands}))
