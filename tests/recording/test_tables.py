"""Tables hold the recording's own numbers, one row for each thing they name."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rankings import full_recording, with_tower

from vlm_analysis import LoadedModel, PromptSet, Recording, record
from vlm_analysis.model_info import TowerInfo
from vlm_analysis.recording.tables import measure_table, prompt_table, span_table
from vlm_analysis.recording.towertable import tower_table
from vlm_analysis.words import TOKEN_GROUPS


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, few: PromptSet) -> Recording:
    return record(loaded, few)


def test_every_domain_group_and_layer_has_one_row_with_every_measure(recording: Recording) -> None:
    table = measure_table(recording)
    assert len(table) == 3 * (5 * 16 + 3)  # five token groups of 16 layers, and the vision encoder's three
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


class TestVisionEncoder:
    """Its rows in the tables, of drawn numbers: a prompt without an image, and a domain that has no other."""

    COSINES = np.random.default_rng(3).uniform(-1, 1, (6, 4))
    COSINES[1] = COSINES[4] = np.nan  # the two prompts of one domain

    @pytest.fixture
    def made(self) -> Recording:
        tower = TowerInfo(4, protected={0: "first"}, locked={2: "DeepStack"})
        return with_tower(full_recording(6), self.COSINES, tower)

    def test_every_domain_and_layer_has_a_row_with_the_mean_of_its_prompts(self, made: Recording) -> None:
        table = tower_table(made).set_index(["domain", "layer"])
        assert len(table) == 4 * 4
        for domain in (*made.domain_names, "all domains"):
            of = [row for row, name in enumerate(made.domains) if domain in (name, "all domains")]
            seen = [row for row in of if not math.isnan(self.COSINES[row, 0])]
            assert table.loc[domain, "n_prompts"].tolist() == [len(seen)] * 4
            for layer in range(4):
                mean = math.fsum(float(self.COSINES[row, layer]) for row in seen) / len(seen) if seen else math.nan
                assert table.loc[(domain, layer), "cosine"] == pytest.approx(mean, rel=1e-12, nan_ok=True)

    def test_the_table_of_measures_has_them_behind_its_own_rows_which_stay_as_they_are(self, made: Recording) -> None:
        table, plain = measure_table(made), measure_table(full_recording(6))
        pd.testing.assert_frame_equal(table[: len(plain)].reset_index(drop=True), plain)
        behind = table[len(plain) :].reset_index(drop=True)
        pd.testing.assert_frame_equal(behind[tower_table(made).columns], tower_table(made))
        assert not table.duplicated(["domain", "token_group", "layer"]).any()
        assert behind.drop(columns=tower_table(made).columns).isna().all(axis=None)

    def test_they_survive_csv_and_parquet_and_without_numbers_there_are_none(self, made: Recording) -> None:
        table, buffer = measure_table(made), io.BytesIO()
        table.to_parquet(buffer, index=False)
        pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(buffer.getvalue())), table)
        back = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        np.testing.assert_allclose(back["cosine"], table["cosine"], rtol=1e-12)
        assert tower_table(full_recording(6)).empty
