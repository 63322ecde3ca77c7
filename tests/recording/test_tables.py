"""Tables hold the recording's own numbers, one row for each thing they name."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import LoadedModel, PromptSet, Recording, record
from vlm_analysis.recording.tables import measure_table, prompt_table, span_table
from vlm_analysis.words import TOKEN_GROUPS


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, few: PromptSet) -> Recording:
    return record(loaded, few)


def test_every_domain_group_and_layer_has_one_row_with_every_measure(recording: Recording) -> None:
    table = measure_table(recording)
    assert len(table) == 3 * 5 * 16
    assert not table.duplicated(["domain", "token_group", "layer"]).any()
    row = table.set_index(["domain", "token_group", "layer"]).loc[("math", "text", 7)]
    assert row["cosine"] == recording.layer_similarity("math", "text")[7]
    assert row["changed_delta_0.05"] == recording.layer_values("changed", "math", "text", which=2)[7]
    assert row["linear_cka"] == recording.linear_cka("math", "text")[7]
    assert np.isnan(row["cross_modal"])
    whole = table.set_index(["domain", "token_group", "layer"]).loc[("all domains", "all", 7)]
    assert whole["cross_modal"] == recording.layer_values("cross_modal")[7]
    assert whole["cross_modal_pooled"] == recording.cross_modal_distance()[7]
    assert whole["n_prompts"] == 6


def test_a_domain_called_as_the_total_has_rows_of_its_own(recording: Recording) -> None:
    odd = replace(recording, domains=("all domains",) * 3 + ("general",) * 3, activations={})
    for table, keys in (
        (measure_table(odd), ["domain", "token_group", "layer"]),
        (span_table(odd), ["domain", "first_layer", "after_last_layer"]),
    ):
        assert not table.duplicated(keys).any()
        assert list(dict.fromkeys(table["domain"])) == ["all domains", "general", "all domains (total)"]
        first = table[table["domain"] == "all domains"]["cosine"].to_numpy()
        assert (first != table[table["domain"] == "all domains (total)"]["cosine"].to_numpy()).any()


def test_prompts_and_spans_have_one_row_each(recording: Recording) -> None:
    prompts = prompt_table(recording, "vision")
    assert prompts["prompt"].tolist() == list(recording.prompt_ids)
    np.testing.assert_array_equal(prompts["layer_3"], recording.rows["cosine"][:, 3, TOKEN_GROUPS.index("vision")])
    spans = span_table(recording, "last")
    assert len(spans) == 3 * 17 * 16 // 2
    chosen = spans[(spans["domain"] == "math") & (spans["first_layer"] == 2) & (spans["after_last_layer"] == 9)]
    assert chosen["cosine"].item() == recording.span_similarity("math", "last")[2, 9]


def test_tables_survive_csv_and_parquet(recording: Recording) -> None:
    table = measure_table(recording)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(buffer.getvalue())), table)
    back = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    np.testing.assert_allclose(back["cosine"], table["cosine"], rtol=1e-12)
