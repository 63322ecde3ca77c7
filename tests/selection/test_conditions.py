"""Skip-It's four redundancies as curves, and whether its conditions rank layers as the measured damage does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rankings import full_recording

from vlm_analysis import AnswerProbe, Recording, VisionScan, conditions_against_damage, redundancies, skip_bands
from vlm_analysis.errors import EvaluationError, MaskError, RecordingError
from vlm_analysis.evaluation.intervals import ratio_bands
from vlm_analysis.evaluation.scan import DENSE, EARLY_EXIT, FROZEN, LATE_ENTRY, MEANS
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.measures import DELTAS
from vlm_analysis.selection.certainty.agreement import kendall_tau
from vlm_analysis.words import TOKEN_GROUPS

N_LAYERS, N_PROMPTS = 6, 40
VISION, TEXT = TOKEN_GROUPS.index("vision"), TOKEN_GROUPS.index("text")
CHANGE = np.array([0.5, 0.1, 0.3, 0.2, 0.6, 0.05])


@pytest.fixture
def recording() -> Recording:
    """Layers that change vision tokens by `CHANGE`, a little different in each prompt; their attention is the other way round."""
    found = full_recording(N_PROMPTS, N_LAYERS, ("math", "maps"))
    noise = np.random.default_rng(1).normal(0, 0.002, (N_PROMPTS, N_LAYERS))
    found.rows["cosine"][:, :, VISION] = 1 - CHANGE + noise
    found.rows["visual_attention"] = 1 - CHANGE + noise
    return found


def a_scan(recording: Recording, damage: np.ndarray, **changes: Any) -> VisionScan:
    """Return a scan with this damage (n_prompts, n_layers) of each frozen layer, three times as much on late entry."""
    rows = []
    for row, (name, domain) in enumerate(zip(recording.prompt_ids, recording.domains, strict=True)):
        ways = [(DENSE, -1, 0.0), *((FROZEN, layer, damage[row, layer]) for layer in range(N_LAYERS))]
        ways += [(LATE_ENTRY, layer, 3 * damage[row, layer - 1]) for layer in range(1, N_LAYERS)]
        ways += [(EARLY_EXIT, layer, damage[row, layer]) for layer in range(N_LAYERS)]
        for way, layer, kl in ways:
            scores = dict.fromkeys(MEANS, 0.0) | {"kl_to_dense": kl, "exact_match": float(way == DENSE or kl < 0.3)}
            rows.append({"way": way, "layer": layer, "id": name, "domain": domain, **scores})
    return replace(VisionScan(recording.model, "p" * 64, pd.DataFrame(rows)), **changes)


def a_probe(recording: Recording, gain: np.ndarray, **changes: Any) -> AnswerProbe:
    """Return a probe of the recording's prompts whose log loss falls by `gain` (n_layers,) and whose accuracy never changes."""
    spread = np.random.default_rng(2).normal(0, 0.01, N_PROMPTS)
    losses = np.zeros((2, N_LAYERS, 2, N_PROMPTS))
    losses[:, :, 0] = 2.0
    losses[:, :, 1] = 2.0 - gain[:, None] + spread
    right = np.ones_like(losses)
    right[1] = np.random.default_rng(3).integers(0, 2, losses[1].shape)
    groups = tuple(f"group {row // 2}" for row in range(N_PROMPTS))
    ids, domains = recording.prompt_ids, recording.domains
    made = AnswerProbe(
        recording.model, "p" * 64, ids, domains, ("",) * N_PROMPTS, groups, right, losses, pd.DataFrame()
    )
    return replace(made, **changes)


def like_change(noise: float = 0.01) -> np.ndarray:
    return np.abs(CHANGE + np.random.default_rng(4).normal(0, noise, (N_PROMPTS, N_LAYERS)))


class TestCurves:
    def test_they_are_those_of_vision_and_of_text_with_attention_beside_vision(self, recording: Recording) -> None:
        table = redundancies(recording, delta=0.05)
        for name, group in (("vision", VISION), ("text", TEXT)):
            rows = table.loc[name]
            np.testing.assert_allclose(rows["geometric"], 1 - recording.rows["cosine"][:, :, group].mean(axis=0))
            np.testing.assert_allclose(
                rows["proximal"], recording.rows["changed"][:, :, group, DELTAS.index(0.05)].mean(axis=0)
            )
        np.testing.assert_allclose(
            table.loc["vision"]["visual_attention"], recording.rows["visual_attention"].mean(axis=0)
        )
        assert table.loc["text"]["visual_attention"].isna().all()
        assert table[["functional", "informational_high"]].isna().all(axis=None)

    def test_gains_are_differences_over_a_layer_with_intervals_over_groups(self, recording: Recording) -> None:
        probe = a_probe(recording, np.arange(N_LAYERS) / 10)
        table, numbers = redundancies(recording, probe), np.arange(N_PROMPTS) // 2
        for place, name in enumerate(("vision", "text")):
            gained = probe.right[place, :, 1] - probe.right[place, :, 0]
            lost = probe.log_loss[place, :, 0] - probe.log_loss[place, :, 1]
            rows = table.loc[name]
            np.testing.assert_allclose(rows["functional"], gained.mean(axis=1))
            np.testing.assert_allclose(rows["informational"], lost.mean(axis=1))
            np.testing.assert_allclose(
                rows[["informational_low", "informational_high"]].T, ratio_bands(lost, np.ones(N_PROMPTS), numbers)
            )
            np.testing.assert_allclose(
                rows["accuracy_behind"] - rows["accuracy_before"], rows["functional"], atol=1e-12
            )
        assert table.loc["vision"]["functional_low"].isna().all()  # equal in all prompts: no spread, no interval

    def test_a_domain_has_its_own(self, recording: Recording) -> None:
        probe = a_probe(recording, np.zeros(N_LAYERS))
        maps = np.array([domain == "maps" for domain in recording.domains])
        wanted = (probe.right[1, :, 1] - probe.right[1, :, 0])[:, maps].mean(axis=1)
        np.testing.assert_allclose(redundancies(recording, probe, domain="maps").loc["text"]["functional"], wanted)

    def test_a_probe_of_another_model_an_unknown_delta_and_an_unknown_domain_are_refused(
        self, recording: Recording
    ) -> None:
        other = a_probe(recording, np.zeros(N_LAYERS), model=ModelInfo("other", "e" * 64, N_LAYERS))
        with pytest.raises(MaskError, match="expected both of made, got a probe of other"):
            redundancies(recording, other)
        with pytest.raises(MaskError, match="Unknown delta"):
            redundancies(recording, delta=0.3)
        with pytest.raises(RecordingError, match="got 'art'"):
            redundancies(recording, a_probe(recording, np.zeros(N_LAYERS)), domain="art")


class TestPrediction:
    def test_the_correlation_is_that_of_the_mean_curves_and_says_what_tells(self, recording: Recording) -> None:
        damage = like_change()
        found = conditions_against_damage(recording, a_scan(recording, damage), a_probe(recording, CHANGE))
        np.testing.assert_allclose(found.damage, damage.mean(axis=0))
        table = found.table
        assert table["tau"]["geometric"] == table["tau"]["informational"] == 1
        assert table["tau"]["visual_attention"] == -1
        share = recording.rows["changed"][:, :, VISION, DELTAS.index(0.1)].mean(axis=0)
        assert table["tau"]["proximal"] == kendall_tau(share, damage.mean(axis=0))
        assert (table["low"]["geometric"], table["high"]["geometric"]) == (1, 1)
        assert found.sentences[0] == (
            "Geometric change and measured damage agree over 6 layers: Kendall tau 1.00, 90 % interval 1.00 to 1.00; "
            "chance reaches 0.58 in one of twenty orders."
        )
        assert "Change of the probe's accuracy and measured damage cannot be compared" in found.sentences[2]
        told = next(one for one in found.sentences if one.startswith("What tells more than chance"))
        assert "geometric change" in told
        assert "visual attention ratio" not in told

    def test_a_probe_that_loses_as_much_as_another_gains_counts_as_much(self, recording: Recording) -> None:
        found = conditions_against_damage(recording, a_scan(recording, like_change()), a_probe(recording, -CHANGE))
        assert found.table["tau"]["informational"] == 1

    def test_draws_take_whole_groups_and_curves_and_damage_together(self, recording: Recording) -> None:
        """Prompts that share a picture make intervals wide; the same draws in a loop give the same ends."""
        damage = like_change(0.3)
        grouped = replace(recording, groups=tuple(f"{row // 8}" for row in range(N_PROMPTS)))
        found = conditions_against_damage(grouped, a_scan(recording, damage)).table
        names = sorted({f"{row // 8}" for row in range(N_PROMPTS)})
        draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), 1000)
        taus = []
        for draw in draws:
            rows = [row for row in range(N_PROMPTS) for _ in range(draw[names.index(f"{row // 8}")])]
            curve = (1 - recording.rows["cosine"][rows, :, VISION]).mean(axis=0)
            taus.append(kendall_tau(curve, damage[rows].mean(axis=0)))
        np.testing.assert_allclose(
            found.loc["geometric", ["low", "high"]].astype(float), np.quantile(taus, [0.05, 0.95]), atol=1e-9
        )
        assert found["low"]["geometric"] < found["high"]["geometric"]

    def test_with_few_prompts_there_is_no_interval(self, recording: Recording) -> None:
        grouped = replace(recording, groups=tuple(f"{row // 20}" for row in range(N_PROMPTS)))
        found = conditions_against_damage(grouped, a_scan(recording, like_change()))
        assert found.table["low"].isna().all()
        assert "Kendall tau 1.00; chance reaches 0.58" in found.sentences[0]
        assert found.sentences[-1].startswith("None of the conditions tells more than chance")

    def test_an_order_that_chance_reaches_tells_nothing_though_all_draws_have_it(self, recording: Recording) -> None:
        """A tau of 0.07 over six layers is no finding, however many prompts there are; one in twenty orders has 0.58 and more."""
        harm = CHANGE[[5, 1, 2, 3, 4, 0]] + np.zeros((N_PROMPTS, 1))
        row = conditions_against_damage(recording, a_scan(recording, harm)).table.loc["geometric"]
        assert 0 < row["low"] <= row["tau"] <= row["high"] < row["chance"]
        orders = [kendall_tau(np.arange(6), np.random.default_rng(seed).permutation(6)) for seed in range(2000)]
        assert np.mean(np.array(orders) > row["chance"]) == pytest.approx(0.05, abs=0.03)
        said = conditions_against_damage(recording, a_scan(recording, harm)).sentences
        assert not any("geometric change" in one for one in said[1:])

    def test_layers_that_were_not_scanned_are_left_out(self, recording: Recording) -> None:
        scan = a_scan(recording, like_change())
        kept = scan.by_prompt[(scan.by_prompt["way"] != FROZEN) | (scan.by_prompt["layer"] > 1)]
        found = conditions_against_damage(recording, replace(scan, by_prompt=kept))
        assert np.isnan(found.damage[:2]).all()
        assert set(found.table["n_layers"]) == {4}

    def test_bands_stand_beside_their_measured_damage(self, recording: Recording) -> None:
        damage = like_change()
        bands = skip_bands(recording, epsilon=0.55, delta=0.1, eta=1.0, tau=1.0)
        assert (bands.late_entry, bands.early_exit) == ((0, 1, 2, 3), (5,))
        found = conditions_against_damage(recording, a_scan(recording, damage), bands=bands)
        late, early = found.bands.loc[LATE_ENTRY], found.bands.loc[EARLY_EXIT]
        assert late["kl_to_dense"] == pytest.approx(3 * damage[:, 3].mean())
        assert early["kl_to_dense"] == pytest.approx(damage[:, 5].mean())
        assert late["low"] < late["kl_to_dense"] < late["high"]
        assert (early["exact_match"], early["dense_exact_match"]) == (1, 1)
        assert found.sentences[-2].startswith("The band of late entry, layers 0, 1, 2 and 3, was measured: KL 0.6")

    def test_bands_that_select_nothing_are_said_to(self, recording: Recording) -> None:
        bands = skip_bands(recording, epsilon=0.0, delta=0.1, eta=0.0, tau=0.0)
        found = conditions_against_damage(recording, a_scan(recording, like_change()), bands=bands)
        assert found.sentences[-1] == "The thresholds select no late entry and no early exit that was scanned."

    def test_parts_of_other_models_and_unknown_names_are_refused(self, recording: Recording) -> None:
        scan = a_scan(recording, like_change())
        with pytest.raises(MaskError, match="got a scan of other"):
            conditions_against_damage(recording, replace(scan, model=ModelInfo("other", "e" * 64, N_LAYERS)))
        with pytest.raises(MaskError, match=r"and 0\.3"):
            conditions_against_damage(recording, scan, delta=0.3)
        with pytest.raises(EvaluationError, match="'art'"):
            conditions_against_damage(recording, scan, domain="art")
