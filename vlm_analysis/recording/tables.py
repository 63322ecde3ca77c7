"""Recordings as tables, for CSV, Parquet and pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlm_analysis.recording.measures import DELTAS, MEASURES, SHARES
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.towertable import has_tower, tower_table
from vlm_analysis.words import TOKEN_GROUPS, total_of_domains

_THIRD = {
    "changed": [f"delta_{delta:g}" for delta in DELTAS],
    "important_cosine": [f"share_{share:g}" for share in SHARES],
}


def measure_table(recording: Recording) -> pd.DataFrame:
    """Return one row per domain (and "all domains", see `words.total_of_domains`), token group and layer, with a column for every measure.

    Means are over prompts with equal weight; `n_prompts` counts those with the token group. Measures without token groups stand in the
    rows of "all"; NaN where nothing was measured. Rows of the vision encoder follow where it was measured (see `towertable.tower_table`):
    their token group is "vision encoder", and their layers are its own.
    """
    frames, total = [], total_of_domains(recording.domain_names)
    for domain in (*recording.domain_names, None):
        for group in TOKEN_GROUPS:
            columns: dict[str, object] = {
                "domain": total if domain is None else domain,
                "token_group": group,
                "layer": np.arange(recording.n_layers),
                "n_prompts": recording.prompts_with(domain, group),
            }
            for name, measure in MEASURES.items():
                if "layer" in measure.axes and name != "hsic" and ("group" in measure.axes or group == "all"):
                    columns |= _columns(recording, name, domain, group)
            columns["linear_cka"] = recording.linear_cka(domain, group)
            if group == "all":
                columns["cross_modal_pooled"] = recording.cross_modal_distance(domain)
            frames.append(pd.DataFrame(columns))
    if has_tower(recording):
        frames.append(tower_table(recording))
    return pd.concat(frames, ignore_index=True)


def _columns(recording: Recording, name: str, domain: str | None, group: str) -> dict[str, np.ndarray]:
    if name not in _THIRD:
        return {name: recording.layer_values(name, domain, group)}
    return {
        f"{name}_{ending}": recording.layer_values(name, domain, group, which=index)
        for index, ending in enumerate(_THIRD[name])
    }


def prompt_table(recording: Recording, token_group: str = "all") -> pd.DataFrame:
    """Return one row per prompt: its id, domain, task (if any have one), token counts and the cosine of every layer for a token group."""
    counts = recording.rows["token_counts"]
    columns: dict[str, object] = {"prompt": recording.prompt_ids, "domain": recording.domains}
    columns |= {"task": recording.tasks} if recording.tasks else {}
    columns |= {f"{group}_tokens": counts[:, index] for index, group in enumerate(TOKEN_GROUPS)}
    columns["not_finite"] = recording.rows["nonfinite"].sum(axis=1)
    values = recording.prompt_similarity(None, token_group)
    columns |= {f"layer_{layer}": values[:, layer] for layer in range(recording.n_layers)}
    return pd.DataFrame(columns)


def span_table(recording: Recording, token_group: str = "all") -> pd.DataFrame:
    """Return one row per domain and pair of streams: the span's first layer, the one after its last, the cosine.

    Rows of all prompts follow, as in `measure_table`.
    """
    first, after = np.triu_indices(recording.n_layers + 1, 1)
    frames, total = [], total_of_domains(recording.domain_names)
    for domain in (*recording.domain_names, None):
        values = recording.span_similarity(domain, token_group)[first, after]
        name = total if domain is None else domain
        frames.append(pd.DataFrame({"domain": name, "first_layer": first, "after_last_layer": after, "cosine": values}))
    return pd.concat(frames, ignore_index=True)
