"""Skip-It's four redundancies (arXiv:2509.25584) of every layer, of vision tokens and, beside them, of text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlm_analysis.errors import MaskError
from vlm_analysis.evaluation.intervals import group_numbers, ratio_bands
from vlm_analysis.recording.answerprobe import PROBED, AnswerProbe
from vlm_analysis.recording.measures import DELTAS
from vlm_analysis.recording.recording import Recording

GAINS = {"functional": "right", "informational": "log_loss"}  # by the redundancy, what of a probe it is made of
ENDS = {"accuracy": "right", "log_loss": "log_loss"}
_OF_PROBE = [f"{name}{end}" for name in GAINS for end in ("", "_low", "_high")]
_OF_PROBE += [f"{name}_{end}" for name in ENDS for end in ("before", "behind")]


def redundancies(
    recording: Recording, probe: AnswerProbe | None = None, *, domain: str | None = None, delta: float = 0.1
) -> pd.DataFrame:
    """Return the curves of the four redundancies and of attention, by (token_group, layer); the token groups are vision and text.

    A layer l is redundant where a value is near 0. The paper gives the first two; how the others are estimated is our choice.

    - `geometric`: mean 1 − cos(x, y) over tokens, in [0, 2];
    - `proximal`: share of tokens with 1 − cos(x, y) ≥ delta, in [0, 1];
    - `functional`: held-out accuracy of the ridge probe behind the layer minus that before it, in [-1, 1];
    - `informational`: held-out log loss of the probe before the layer minus that behind it, in nats: an estimate of the mutual information
      with the answer that the layer adds to the mean state, in as far as a linear probe reads it;
    - `visual_attention`: share of attention of text queries to vision keys, in the rows of vision; NaN where no maps were recorded.

    `_low` and `_high` are the ends of 90 % intervals of the gains over groups of prompts; `accuracy_` and `log_loss_`, each with `before`
    and `behind`, are the probe's (see `probe_table`). Without a probe these are NaN.

    Args:
        recording: of the model, on any prompts.
        probe: what `probe_answers` returned, of the same model.
        domain: whose prompts; None for all.
        delta: smallest 1 − cosine at which a token counts as changed, one of `DELTAS`.

    Raises:
        MaskError: a delta that was not recorded, or a probe of another model.
        RecordingError: an unknown domain.
    """
    if delta not in DELTAS:
        raise MaskError(f"Unknown delta: expected one of {list(DELTAS)}, got {delta!r}. Take one of them.")
    check_same_model(recording, probe)
    n_layers, frames = recording.n_layers, []
    gains = None if probe is None else probe_table(probe, domain=domain)
    for group in PROBED:
        attention = group == "vision" and recording.has("visual_attention")
        frame = pd.DataFrame(
            {
                "geometric": 1.0 - recording.layer_values("cosine", domain, group),
                "proximal": recording.layer_values("changed", domain, group, which=DELTAS.index(delta)),
                "visual_attention": recording.layer_values("visual_attention", domain) if attention else np.nan,
            },
            index=pd.MultiIndex.from_product([[group], range(n_layers)], names=["token_group", "layer"]),
        )
        frames.append(frame)
    found = pd.concat(frames)
    return found.join(gains) if gains is not None else found.assign(**dict.fromkeys(_OF_PROBE, np.nan))


def gain_values(probe: AnswerProbe, name: str, domain: str | None = None, group: int = 0) -> np.ndarray:
    """Return the (n_prompts, n_layers) gain of the probe by a layer: "functional" in right answers, "informational" in nats."""
    values = getattr(probe, GAINS[name])[group][:, :, probe.rows(domain)]
    gain = values[:, 1] - values[:, 0]
    return (gain if name == "functional" else -gain).T


def check_same_model(recording: Recording, other: AnswerProbe | None) -> None:
    """Raise MaskError where the probe is of another model than the recording."""
    if other is not None and other.model.fingerprint != recording.model.fingerprint:
        raise MaskError(
            f"Recording and probe do not fit together: expected both of {recording.model.name}, got a probe of {other.model.name}. Probe "
            "the answers with the recorded model."
        )


def probe_table(probe: AnswerProbe, *, domain: str | None = None) -> pd.DataFrame:
    """Return what a probe tells of each layer by (token_group, layer), the part of `redundancies` that needs no recording.

    Columns: `functional` and `informational` with the ends `_low` and `_high` of their 90 % intervals over groups of prompts, NaN with too
    few of them; `accuracy_before`, `accuracy_behind`, `log_loss_before` and `log_loss_behind`. Means over prompts with equal weight.

    Raises:
        RecordingError: no prompt of this domain was probed.
    """
    rows = probe.rows(domain)
    numbers = group_numbers([probe.groups[row] for row in rows], len(rows))
    frames = []
    for group, token_group in enumerate(PROBED):
        found: dict[str, np.ndarray] = {}
        for name in GAINS:
            values = gain_values(probe, name, domain, group).T
            found[name] = values.mean(axis=1)
            found[f"{name}_low"], found[f"{name}_high"] = ratio_bands(values, np.ones(len(rows)), numbers)
        for name, of in ENDS.items():
            before, behind = getattr(probe, of)[group][:, :, rows].mean(axis=2).T
            found |= {f"{name}_before": before, f"{name}_behind": behind}
        index = pd.MultiIndex.from_product([[token_group], range(probe.model.n_layers)], names=["token_group", "layer"])
        frames.append(pd.DataFrame(found, index=index))
    return pd.concat(frames)
