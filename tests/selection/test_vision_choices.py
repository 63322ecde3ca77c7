"""Where vision tokens skip layers, chosen from a scan or a recording: what each way takes and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rankings import evaluation, full_recording

from vlm_analysis import (
    Edit,
    PruneMask,
    Recording,
    VisionScan,
    early_exit,
    exit_by_kl,
    freeze,
    freeze_by_kl,
    greedy,
    late_entry,
    scan_front,
    span_by_similarity,
    within_flops,
)
from vlm_analysis.errors import EditError, EvaluationError
from vlm_analysis.evaluation.scan import DENSE, EARLY_EXIT, FROZEN, LATE_ENTRY, MEANS
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.skipping import is_skipping
from vlm_analysis.selection.strategies.many import Way, with_vision

N = 4
MODEL = ModelInfo("m", "f", N, layer_parameters=(10, 10, 10, 10), n_parameters=50)
KL = {
    (DENSE, -1): 0.0,
    (LATE_ENTRY, 1): 0.5,
    (EARLY_EXIT, 1): 0.9,
    (EARLY_EXIT, 2): 0.002,
    (EARLY_EXIT, 3): 0.004,
    (FROZEN, 0): 0.3,
    (FROZEN, 1): 0.1,
    (FROZEN, 2): 0.2,
    (FROZEN, 3): 0.001,
}


def scan(kl: dict[tuple[str, int], float] | None = None) -> VisionScan:
    """Return a scan of two prompts; of the second, in domain b, all are twice as large."""
    rows = [
        {"way": way, "layer": layer, "id": name, "domain": name, **dict.fromkeys(MEANS, value * times)}
        for (way, layer), value in (kl or KL).items()
        for name, times in (("a", 1), ("b", 2))
    ]
    return VisionScan(MODEL, "p", pd.DataFrame(rows), "sliced", n_vision=6, n_text=4, attention_size=3, kv_parameters=2)


class TestTable:
    def test_prompts_count_equally_and_domains_apart(self) -> None:
        assert scan().table()["kl_to_dense"][LATE_ENTRY, 1] == pytest.approx(0.75)
        assert scan().table("b")["first_kl_to_dense"][EARLY_EXIT, 1] == pytest.approx(1.8)
        with pytest.raises(EvaluationError, match=r"no domain 'c': expected one of \['a', 'b'\]"):
            scan().table("c")

    def test_a_number_that_is_missing_stays_missing(self) -> None:
        assert np.isnan(scan({(FROZEN, 0): np.nan}).table()["kl_to_dense"][FROZEN, 0])

    def test_a_row_is_an_edit_in_the_form_of_the_scan(self) -> None:
        assert scan().edit(LATE_ENTRY, 1) == late_entry(N, 1, form="sliced")
        assert scan().edit(EARLY_EXIT, 3) == early_exit(N, 3, form="sliced")
        assert scan().edit(FROZEN, 2) == freeze(N, [2], form="sliced")
        assert scan().edit(DENSE, -1) == Edit(N)
        with pytest.raises(EvaluationError, match="expected one of dense, late entry, early exit, frozen, got 'late'"):
            scan().edit("late", 1)

    def test_its_repr_is_short(self) -> None:
        assert repr(scan()) == "VisionScan(m, 9 edits, sliced, 2 prompts of a, b)"


def test_flops_are_those_counted_by_hand() -> None:
    """A layer of 10 parameters, 6 vision tokens and 4 others; 10 numbers a query would be 3 here."""
    dense = 2 * 10 * 10 + 4 * 3 * 55
    absent = 2 * 10 * 4 + 4 * 3 * 10
    frozen = 2 * 10 * 4 + 2 * 2 * 6 + 4 * 3 * (10 + 24)
    assert scan().flops_share(Edit(N)) == 1
    assert scan().flops_share(early_exit(N, 3)) == pytest.approx((3 * dense + absent) / (4 * dense))
    both = freeze(N, [1]) + late_entry(N, 1) + PruneMask(N, [2])
    assert scan().flops_share(both) == pytest.approx((absent + frozen + dense) / (4 * dense))


class TestChoices:
    def test_the_earliest_exit_within_the_bound(self) -> None:
        assert exit_by_kl(scan(), bound=0.003, first=1) == early_exit(N, 2, form="sliced")
        assert exit_by_kl(scan(), bound=0.01, first=3) == early_exit(N, 3, form="sliced")
        assert exit_by_kl(scan(), bound=0.002, first=1, domain="a") == early_exit(N, 2, form="sliced")
        with pytest.raises(EditError, match=r"a KL of at most 0\.003 at layer 3 or later, got 0\.006\. Raise it"):
            exit_by_kl(scan(), first=3)

    def test_the_layers_of_least_kl_are_frozen(self) -> None:
        assert freeze_by_kl(scan(), 2) == freeze(N, [1, 3], form="sliced")
        assert freeze_by_kl(scan(), 0) == Edit(N)
        with pytest.raises(EditError, match="expected 0 to 4 with a finite KL, got 5"):
            freeze_by_kl(scan(), 5)
        with pytest.raises(EditError, match="The scan holds no frozen"):
            freeze_by_kl(scan({(EARLY_EXIT, 1): 0.0}), 1)

    def test_within_flops_the_least_kl_counts(self) -> None:
        found = scan()
        assert within_flops(found, 1.0) == Edit(N)
        assert within_flops(found, found.flops_share(found.edit(FROZEN, 3))) == found.edit(FROZEN, 3)
        assert within_flops(found, found.flops_share(found.edit(EARLY_EXIT, 2))) == found.edit(EARLY_EXIT, 2)
        with pytest.raises(EditError, match=r"at most 1% of the dense FLOPs, got \d\d% at least"):
            within_flops(found, 0.01)


class TestSimilarity:
    @pytest.mark.parametrize(
        ("curve", "entry", "out"),
        [
            ([0.9, 0.5, 0.8, 0.95, 0.99, 0.99, 0.985, 0.99, 0.99], 1, 4),
            ([0.9, 0.8, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 2, 3),
            ([0.9, 0.5, 0.99, 0.98, 0.6, 0.7, 0.8, 0.9, 0.99], 1, 8),
        ],
    )
    def test_they_enter_at_the_first_minimum_and_leave_at_the_plateau(
        self, monkeypatch: pytest.MonkeyPatch, curve: list[float], entry: int, out: int
    ) -> None:
        monkeypatch.setattr(Recording, "layer_similarity", lambda *_: np.array(curve))
        assert span_by_similarity(full_recording()) == late_entry(9, entry) + early_exit(9, out)

    @pytest.mark.parametrize(("curve", "said"), [(range(9), "expected a local minimum"), ([np.nan] * 9, "got NaN")])
    def test_a_curve_that_tells_nothing_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, curve: Any, said: str
    ) -> None:
        monkeypatch.setattr(Recording, "layer_similarity", lambda *_: np.array(curve, float))
        with pytest.raises(EditError, match=said):
            span_by_similarity(full_recording())


def test_the_front_of_a_scan_is_what_no_other_edit_beats_in_kl_and_flops() -> None:
    found = scan()
    front = [(EARLY_EXIT, 2), (EARLY_EXIT, 1), (FROZEN, 3)]
    shares = {one: found.flops_share(found.edit(*one)) for one in KL if one != (DENSE, -1)}
    beaten = {one for one in shares for other in shares if shares[other] <= shares[one] and KL[other] < KL[one]}
    assert {one for one in shares if one not in beaten} == set(front)
    assert set(scan_front(found, 20)) == {found.edit(*one) for one in front}
    assert scan_front(found, 1) == [found.edit(EARLY_EXIT, 1)]
    assert scan_front(scan({(DENSE, -1): 0.0, (FROZEN, 0): np.nan}), 3) == []


def test_the_front_that_is_taken_keeps_most_answers_where_some_edit_does() -> None:
    found = scan()
    kept = {(DENSE, -1): 1.0, (EARLY_EXIT, 2): 0.95, (FROZEN, 3): 1.0}
    rows = found.by_prompt
    answers = [kept.get(one, 0.5) for one in zip(rows["way"], rows["layer"], strict=True)]
    found = replace(found, by_prompt=rows.assign(exact_match=answers))
    assert scan_front(found, 2) == [found.edit(FROZEN, 3), found.edit(EARLY_EXIT, 2)]
    assert scan_front(found, 1) == [found.edit(EARLY_EXIT, 2)]
    assert scan_front(found, 1, least=0.4) == [found.edit(EARLY_EXIT, 1)]
    assert scan_front(found, 2, least=0.97) == [found.edit(FROZEN, 3)]
    worse = replace(found, by_prompt=rows.assign(exact_match=[float(way == DENSE) for way in rows["way"]]))
    assert scan_front(worse, 3) == [found.edit(FROZEN, 3)]  # none keeps enough: the one of the least KL


class TestWithMasks:
    def test_edits_compete_alone_and_beside_every_mask_but_random_ones(self) -> None:
        out, mask = early_exit(N, 3, form="sliced"), PruneMask(N, [1], name="ours")
        plain = Way("Ours", "ours", "first-k", None, 1, 0, mask)
        drawn = replace(plain, method="random", mask=PruneMask(N, [2]))
        kept, random, alone, both = with_vision([plain, drawn], [out])
        assert (kept, random) == (plain, drawn)
        assert (alone.mask, alone.budget, alone.criterion) == (out, 0, None)
        assert (both.mask, both.budget, both.method) == (mask + out, 1, "Ours, absent 3")
        frame = pd.DataFrame({"strategy": [way.strategy for way in (kept, random, alone, both)]})
        assert list(is_skipping(frame)) == [False, False, True, True]

    def test_a_search_stands_beside_an_edit(self) -> None:
        out = early_exit(5, 3)
        seen: list[Edit] = []

        def measure(edits: list[Edit]) -> list[Any]:
            seen.extend(edits)
            harms = [(sum(edit.dropped) / 10, 0.0) for edit in edits]
            made = [
                evaluation(edit.dropped, harm, (1, 1), ("a", "b"), n_layers=5)
                for edit, harm in zip(edits, harms, strict=True)
            ]
            return [replace(one, edit=edit) for one, edit in zip(made, edits, strict=True)]

        found = greedy(measure, 2, n_layers=5, beside=out)
        assert found == PruneMask(5, [1, 2]) + out
        assert found.provenance["beside"] == out.words()
        assert seen[0].is_dense
        assert all(edit == PruneMask(5, edit.dropped) + out for edit in seen[1:])
