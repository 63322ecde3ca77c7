"""The similarity of the vision encoder's layers in a recording, as values and as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlm_analysis.recording.measures import mean_of_prompts
from vlm_analysis.recording.recording import Recording
from vlm_analysis.words import total_of_domains

ENCODER = "vision encoder"  # stands in place of a token group where layers are the encoder's, and tokens its own


def tower_similarity(recording: Recording, domain: str | None = None) -> np.ndarray:
    """Return the (n_tower,) float64 mean cosine of input and output of each layer of the vision encoder, in [-1, 1].

    The mean is over the encoder's tokens of a prompt (its class token too, without padding), then over prompts with equal weight.
    Prompts without an image are left out; none left gives NaN, as in recordings of older versions.

    Raises:
        RecordingError: an unknown domain.
    """
    values = _values(recording, domain)
    return mean_of_prompts(values, ~np.isnan(values))


def has_tower(recording: Recording) -> bool:
    """Return whether the recording has the similarity of a layer of the vision encoder."""
    return not np.isnan(recording.rows["tower_cosine"]).all()


def tower_table(recording: Recording) -> pd.DataFrame:
    """Return one row per domain (and "all domains", see `words.total_of_domains`) and layer of the vision encoder.

    Columns: domain, token_group ("vision encoder"), layer (of the encoder, from 0), n_prompts (those with an image), cosine (see
    `tower_similarity`). No row where the recording has no such numbers.
    """
    columns: dict[str, list[object]] = {name: [] for name in ("domain", "token_group", "layer", "n_prompts", "cosine")}
    total = total_of_domains(recording.domain_names)
    for domain in (*recording.domain_names, None) if has_tower(recording) else ():
        counts = (~np.isnan(_values(recording, domain))).sum(axis=0)
        for layer, cosine in enumerate(tower_similarity(recording, domain)):
            row = (total if domain is None else domain, ENCODER, layer, int(counts[layer]), float(cosine))
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return pd.DataFrame(columns)


def _values(recording: Recording, domain: str | None) -> np.ndarray:
    """Return the (prompts, n_tower) cosines of a domain's prompts, of all for None; NaN where there are none."""
    recording.prompts_with(domain)  # refuses a domain that it does not know
    values: np.ndarray = recording.rows["tower_cosine"][[domain in (None, one) for one in recording.domains]]
    return values
