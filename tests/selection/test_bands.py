"""Skip-It? bands: the curves, what thresholds select, and the runs at both ends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rankings import full_recording

from vlm_analysis import Recording, score_layers
from vlm_analysis.errors import MaskError, RecordingError
from vlm_analysis.recording.measures import DELTAS
from vlm_analysis.selection.criteria.bands import skip_bands
from vlm_analysis.words import TOKEN_GROUPS

VISION = TOKEN_GROUPS.index("vision")


def banded(cosine: list[float], changed: list[float], attention: list[float]) -> Recording:
    recording = full_recording(3, len(cosine), ("math",))
    recording.rows["cosine"][:, :, VISION] = cosine
    recording.rows["changed"][:, :, VISION, DELTAS.index(0.05)] = changed
    recording.rows["visual_attention"] = attention
    return recording


def five() -> Recording:
    return banded([0.99, 0.98, 0.5, 0.97, 0.99], [0.0, 0.3, 0.9, 0.1, 0.0], [0.1, 0.1, 0.1, 0.1, 0.9])


def asked(recording: Recording, **changes: Any) -> Any:
    return skip_bands(recording, **{"epsilon": 0.05, "delta": 0.05, "eta": 0.2, "tau": 0.5, **changes})


def test_a_layer_is_selected_where_it_is_redundant_and_little_looked_at() -> None:
    bands = asked(five())
    np.testing.assert_allclose(bands.geometric, [0.01, 0.02, 0.5, 0.03, 0.01], atol=1e-12)
    assert bands.geometric_low.tolist() == [True, True, False, True, True]
    assert bands.proximal_low.tolist() == [True, False, False, True, True]
    assert bands.attention_low.tolist() == [True, True, True, True, False]
    assert bands.selected.tolist() == [True, False, False, True, False]
    assert (bands.late_entry, bands.early_exit) == ((0,), ())


def test_a_layer_at_its_thresholds_is_selected() -> None:
    recording = banded([0.75, 0.75, 0.75], [0.25, 0.25, 0.26], [0.5, 0.51, 0.5])
    assert asked(recording, epsilon=0.25, eta=0.25, tau=0.5).selected.tolist() == [True, False, False]


def test_the_bands_are_the_runs_at_both_ends() -> None:
    assert (asked(five(), tau=1.0).late_entry, asked(five(), tau=1.0).early_exit) == ((0,), (3, 4))
    every = asked(five(), tau=1.0, epsilon=1.0, eta=1.0)
    assert (every.late_entry, every.early_exit) == ((0, 1, 2, 3, 4), ())


@pytest.mark.parametrize(
    ("rule", "selected"),
    [("both", [0, 3]), ("either", [0, 1, 3]), ("geometric", [0, 1, 3]), ("proximal", [0, 3])],
)
def test_the_rule_says_which_redundancies_hold(rule: str, selected: list[int]) -> None:
    assert np.flatnonzero(asked(five(), rule=rule).selected).tolist() == selected


def test_without_attention_maps_redundancy_alone_decides_and_the_curve_is_none() -> None:
    bands = asked(full_recording(attention=False), epsilon=2, eta=1, tau=0)
    assert bands.attention is None
    assert bands.attention_low is None
    assert bands.selected.all()


def test_the_curves_are_the_criteria_of_the_same_name() -> None:
    recording = full_recording()
    for domain in (None, "maps"):
        bands = asked(recording, delta=0.1, domain=domain)
        geometric = score_layers(recording, "skip-geometric", domain=domain)
        proximal = score_layers(recording, "skip-proximal", domain=domain, delta=0.1)
        np.testing.assert_array_equal(bands.geometric, geometric.values)
        np.testing.assert_array_equal(bands.proximal, proximal.values)


def test_a_layer_without_a_number_is_never_selected() -> None:
    recording = five()
    recording.rows["cosine"][:, 0] = np.nan
    recording.rows["nonfinite"][:, 0] = 1
    assert not asked(recording).selected[0]


@given(st.integers(0, 20), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_looser_thresholds_never_select_less(seed: int, epsilon: float, eta: float, tau: float, more: float) -> None:
    recording = full_recording(4, 7, ("math",), seed=seed)
    tight = asked(recording, epsilon=epsilon, eta=eta, tau=tau)
    loose = asked(recording, epsilon=epsilon + more, eta=eta + more, tau=tau + more)
    assert not (tight.selected & ~loose.selected).any()
    assert len(tight.late_entry) <= len(loose.late_entry)


@pytest.mark.parametrize("wrong", [{"delta": 0.3}, {"rule": "neither"}, {"epsilon": math.nan}])
def test_questions_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MaskError, match="expected"):
        asked(five(), **wrong)


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(RecordingError, match="got 'art'"):
        asked(five(), domain="art")
