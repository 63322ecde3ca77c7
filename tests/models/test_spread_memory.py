"""A model that is spread over memory and disk takes the memory that it was given and little more, and reads no weight twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.spread import made, measured


@pytest.mark.slow
def test_a_spread_model_takes_the_memory_it_was_given_and_reads_each_weight_once_a_pass(tmp_path: Path) -> None:
    """Above its bound there are the prompt's own states, the weights that a layer multiplies and what is looked at for the fingerprint."""
    folder = made(tmp_path / "model")
    whole, some, none = (measured(folder, bound) for bound in ("", "100MB", "0"))
    size = whole["places"]["cpu"] / 1e6
    assert size == pytest.approx(454, abs=1)
    assert (some["places"]["cpu"] / 1e6, none["places"]) == (pytest.approx(57, abs=1), {"disk": whole["places"]["cpu"]})
    assert whole["steps"]["record"]["peak_mb"] > 0.9 * size, "the peak is not seen"
    for found, held in ((some, 100), (none, 0)):
        assert found["numbers"] == whole["numbers"]
        steps = found["steps"]
        assert steps["load"]["peak_mb"] < held + 50
        assert steps["load"]["most_reads"] == 0
        for name in ("fingerprint", "record"):
            assert steps[name]["peak_mb"] < held + 120
            assert (name, steps[name]["most_reads"]) == (name, 1)
            assert steps[name]["weights_read"] > 100
