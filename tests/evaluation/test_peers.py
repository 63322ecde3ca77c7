"""What a researcher would write without Strata finds the same numbers, where it looks at the same states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.peers import in_a_sweep, masks_of, one_at_a_time, strata_recording, usual_recording

if TYPE_CHECKING:
    from vlm_analysis import LoadedModel, PromptSet


def test_the_cosine_of_neighbouring_states_is_a_layers_similarity_but_where_states_are_changed_in_between(
    loaded: LoadedModel, few: PromptSet
) -> None:
    usual, ours = np.array(usual_recording(loaded, few)), np.array(strata_recording(loaded, few, full=False))
    added = [
        1,
        2,
        15,
    ]  # DeepStack adds features in front of layers 1 and 2, and a norm stands between the last layer and its state
    assert np.delete(ours, added) == pytest.approx(np.delete(usual, added), abs=1e-6)
    assert abs(ours - usual)[added].min() > 1e-3


def test_a_copy_without_the_layers_scores_as_a_sweep_does(loaded: LoadedModel, few: PromptSet) -> None:
    masks = masks_of(loaded, 3)
    alone, swept = (np.array(way(loaded, few, masks)) for way in (one_at_a_time, in_a_sweep))
    assert (alone[..., 0] == swept[..., 0]).all()
    assert 0 < swept[..., 0].mean() < 1
    assert swept[..., 1] == pytest.approx(alone[..., 1], abs=1e-5)
