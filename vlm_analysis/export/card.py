"""The model card of an exported checkpoint: what it is, its evaluation, and how to reproduce it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from math import isnan

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.learnt import Learnt
from vlm_analysis.edits.skipping import FULL, vision_row
from vlm_analysis.evaluation.evaluation import Evaluation, retention
from vlm_analysis.evaluation.telling import accepted_line, telling_line, telling_score_of, unanswered_line
from vlm_analysis.export.serving.rules import SERVING_FILE, Served
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.words import sentence

MASK_FILE, EDIT_FILE, MANIFEST_FILE = "strata-mask.json", "strata-edit.json", "strata-manifest.json"
LEARNT_FILE = (
    "strata-edit/edit.json"  # its tensors lie beside it, where engines that load every weight of a folder do not look
)
_COLUMNS = {
    "exact_match": ("exact match", "{:.1%}"),
    "retention": ("retention", "{:.1%}"),
    "answer_nll": ("answer NLL (nats a token)", "{:.4f}"),
    "token_agreement": ("token agreement", "{:.1%}"),
    "kl_to_dense": ("KL to dense (nats)", "{:.4f}"),
}
_MEANING = (
    "Each score is the equal-weight mean over a domain's n prompts. Exact match: the whole answer is reproduced by greedy decoding; "
    "retention: that over the dense model's; answer NLL: negative log-likelihood of the answer's tokens; token agreement and KL: "
    "against the dense model at the answer's positions."
)


def edit_file(edit: Edit) -> str:
    """Return the name of the file of a checkpoint that holds its edit."""
    if any(isinstance(change, Learnt) for change in edit.changes):
        return LEARNT_FILE
    return MASK_FILE if edit.is_mask else EDIT_FILE


def reproduction_command(source: str, info: ModelInfo, file: str = MASK_FILE) -> str:
    """Return a shell command that reproduces the checkpoint in the folder `pruned-again`.

    Run it in the folder of the edit file, with Strata installed; a source that is a folder is expected there too.

    Args:
        source: what `load_model` takes: "pocket-vl", a hub id, or a folder as `./name`.
        info: the dense model: its revision and precision.
        file: name of the edit file.
    """
    revision = f", revision={_quoted(info.revision)}" if info.revision else ""
    code = (
        "from pathlib import Path; from vlm_analysis import export_checkpoint, load_model, open_edit; "
        f"loaded = load_model({_quoted(source)}{revision}, dtype={_quoted(info.dtype)}); "
        f"export_checkpoint(loaded, open_edit(Path({_quoted(file)})), Path({_quoted('pruned-again')}))"
    )
    return f"python -c {shlex.quote(code)}"


def _quoted(text: str) -> str:
    """Return text as a Python string in double quotes, as the shell command is in single quotes."""
    return json.dumps(text, ensure_ascii=False)


def model_card(
    edit: Edit,
    info: ModelInfo,
    command: str,
    evidence: Evaluation | None = None,
    reference: Evaluation | None = None,
    *,
    served: Sequence[Served] = (),
    probe: str = "",
) -> str:
    """Return the card's Markdown.

    Args:
        edit: the edit of the checkpoint.
        info: the dense model.
        command: how to reproduce the checkpoint (see `reproduction_command`).
        evidence: the evaluation of the edit.
        reference: the dense evaluation on the same prompts, for retention.
        served: what engines do with the checkpoint.
        probe: what the probe in its folder can tell; "" without one.
    """
    name = _inline(edit.name)
    notes = "".join(f"    {line}\n" for line in edit.notes.splitlines())  # indented: shown as text, never as markdown
    revision = f", revision `{_inline(info.revision)}`" if info.revision else ""
    return (
        f"# {len(edit.kept)} of {edit.n_layers} decoder layers of a vision-language model\n\n"
        f"Made by Strata. Dropped layers, counted from 0: {', '.join(map(str, edit.dropped)) or 'none'}. {_what_else(edit)}\n\n"
        f"- Source: `{_inline(info.name)}`{revision}, fingerprint `{info.fingerprint[:16]}`\n"
        f"- What was done: `{edit_file(edit)}`{f', `{name}`' if name else ''}\n"
        f"- How it was checked: `{MANIFEST_FILE}`\n"
        + (f"\nNotes:\n\n{notes}" if notes else "")
        + _loading(edit)
        + f"\n## Evidence\n\n{_evidence(evidence, reference)}"
        + _serving(served, probe)
        + f"\n## Make it again\n\nWith `{edit_file(edit)}` in the working folder and Strata installed:\n\n```\n{command}\n```\n"
    )


def _what_else(edit: Edit) -> str:
    if edit.is_mask:
        return "The weights of the kept layers are unchanged; nothing was trained afterwards."
    return f"In all, the edit {_inline(edit.words())}."


def _loading(edit: Edit) -> str:
    """Return how a model is loaded in which vision tokens skip layers; "" where they skip none."""
    if set(vision_row(edit)) == {FULL}:
        return ""
    return (
        "\n## How to load it\n\nThe checkpoint is a plain one, in which vision tokens run through all layers. `strata_vision.py` in this "
        "folder lets them skip those that `strata-vision.json` names, counted as they stand here. It needs torch and transformers alone:"
        "\n\n```python\nfrom strata_vision import load  # in this folder\n\nmodel = load('.')\n```\n"
    )


def _evidence(evidence: Evaluation | None, reference: Evaluation | None) -> str:
    if evidence is None:
        return "None: this edit was exported without an evaluation.\n"
    table, line = evidence.by_domain, ""
    if reference is not None:
        metric = telling_score_of(reference, evidence)
        table["retention"] = retention(evidence, reference, metric)
        line = telling_line(metric)
    columns = [column for column in _COLUMNS if column in table]
    head = ["domain", "n", *(_COLUMNS[column][0] for column in columns)]
    rows = [
        [
            f"`{_inline(str(domain))}`",
            str(int(row["n"])),
            *("–" if isnan(row[column]) else _COLUMNS[column][1].format(row[column]) for column in columns),
        ]
        for domain, row in table.iterrows()
    ]
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    told = f" {_inline(line)} Retention is that of it." if line else ""
    answers = "".join(f" {line}" for line in (accepted_line(evidence), unanswered_line(evidence)) if line)
    aside = f" {len(evidence.set_aside)} more could not be asked and do not count." if evidence.set_aside else ""
    return f"{text}\n\n{_MEANING}{told} Prompts: fingerprint `{_inline(evidence.prompts)[:16]}`.{aside}{answers}\n"


def _serving(served: Sequence[Served], probe: str) -> str:
    if not served:
        return ""
    rows = [
        [
            f"{one.engine} {one.version}",
            one.verdict,
            _inline(one.reason),
            "run here" if one.run_here else "read in its code, not run here",
        ]
        for one in served
    ]
    lines = [["engine", "verdict", "why", "known from"], ["---"] * 4, *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    told = (
        f"\n\nWhether a server answers as this model does: `strata probe http://127.0.0.1:8000 --export .` asks it the prompts in "
        f"`probe/`. {sentence(_inline(probe))}."
        if probe
        else ""
    )
    return f"\n## Where it is served\n\n{table}\n\nCommands and sources are in `{SERVING_FILE}`.{told}\n"


def _inline(text: str) -> str:
    """Return user text on one line, without characters that end a code span or a table cell."""
    return " ".join(text.replace("`", "'").replace("|", "¦").split())
