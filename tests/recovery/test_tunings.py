"""Settings of a fine-tuning: presets as published, rates and checks by hand, and what is none is refused."""

from __future__ import annotations

import math

import pytest

from vlm_analysis.errors import EditError
from vlm_analysis.recovery.heldout import MOST_HELD_OUT, split_held_out
from vlm_analysis.recovery.memoryplan import GIB, MARGIN, plan_memory
from vlm_analysis.recovery.tunings import TUNINGS, Tuning, tuning_of


class TestTunings:
    def test_the_preset_of_the_paper_has_its_settings(self) -> None:
        tuning = TUNINGS["domain-aware"]
        assert (tuning.rank, tuning.alpha, tuning.dropout, tuning.learning_rate) == (32, 64, 0.05, 2e-5)
        assert (tuning.weight_decay, tuning.batch_size, tuning.epochs, tuning.targets) == (0.1, 64, 1, "decoder")
        assert tuning.n_steps(200_000) == 3125

    def test_the_rate_rises_and_falls_as_a_cosine(self) -> None:
        tuning = Tuning(learning_rate=1.0, warmup=0.2)
        rates = [tuning.rate_at(step, 10) for step in range(10)]
        assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
        assert rates[6] == pytest.approx(0.5)
        assert rates[9] == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)

    @pytest.mark.parametrize(("n_steps", "after"), [(60, {6 * one for one in range(1, 11)}), (3, {1, 2, 3}), (1, {1})])
    def test_checks_lie_evenly_and_one_is_after_the_last_step(self, n_steps: int, after: set[int]) -> None:
        assert Tuning().checked_after(n_steps) == after

    def test_options_take_the_place_of_settings(self) -> None:
        assert tuning_of("partners", {"most_steps": 3, "kl": 0.5}) == Tuning(targets="partners", most_steps=3, kl=0.5)

    @pytest.mark.parametrize(
        ("how", "options", "said"),
        [
            ("large", {}, "expected one of small, domain-aware, partners, projector, got 'large'"),
            ("small", {"steps": 3}, "no such setting: expected one of targets, rank, alpha"),
            ("small", {"rank": 0}, "expected a whole number from 1 on as rank, got 0"),
            ("small", {"rank": True}, "as rank, got True"),
            ("small", {"learning_rate": float("nan")}, "expected a number above 0 as learning_rate, got nan"),
            ("small", {"dropout": 1}, "expected a number from 0 to below 1 as dropout, got 1"),
            ("small", {"held_out": 0}, "expected a number between 0 and 1 as held_out, got 0"),
            ("small", {"kl": -1}, "expected a number from 0 on as kl, got -1"),
            ("small", {"most_steps": 0}, "as most_steps, got 0"),
            ("small", {"targets": "tower"}, "expected one of decoder, partners, projector as targets, got 'tower'"),
        ],
    )
    def test_what_is_no_setting_is_refused(self, how: str, options: dict[str, object], said: str) -> None:
        with pytest.raises(EditError, match=said):
            tuning_of(how, options)


class TestHeldOut:
    def test_groups_stay_whole_and_every_domain_is_measured(self) -> None:
        groups = [f"{row // 3}" for row in range(90)]
        domains = ["math"] * 45 + ["general"] * 45
        rows, held_out = split_held_out(range(90), groups, domains, 0.2, 0)
        assert sorted(rows + held_out) == list(range(90))
        assert not {groups[row] for row in rows} & {groups[row] for row in held_out}
        assert [sum(domains[row] == name for row in held_out) for name in ("math", "general")] == [9, 9]
        assert split_held_out(range(90), groups, domains, 0.2, 0) == (rows, held_out)
        assert split_held_out(range(90), groups, domains, 0.2, 1) != (rows, held_out)

    def test_no_domain_is_held_out_as_a_whole_unless_it_has_one_group(self) -> None:
        rows, held_out = split_held_out([0, 1, 2], ["a", "b", "b"], ["one", "two", "two"], 0.5, 0)
        assert (rows, held_out) == ((1, 2), (0,))
        rows, held_out = split_held_out(range(5), list("abcde"), ["one"] * 4 + ["two"], 0.25, 0)
        assert 4 in rows

    def test_not_more_than_a_bound_is_held_out(self) -> None:
        _, held_out = split_held_out(range(5000), [str(row) for row in range(5000)], ["one"] * 5000, 0.2, 0)
        assert len(held_out) == MOST_HELD_OUT

    def test_one_group_is_refused(self) -> None:
        with pytest.raises(EditError, match=r"expected two groups or more.*got 3 in one"):
            split_held_out(range(3), ["a"] * 3, ["one"] * 3, 0.2, 0)


def planned(
    free: float, *, factors: float = 0.0, activations: float = 1.0, recomputed: float = 0.25, batch: int = 16
) -> tuple[int, bool]:
    sizes = {"factors": factors, "activations": activations, "recomputed": recomputed, "free": free}
    plan = plan_memory(
        name="tiny", dtype="bfloat16", batch_size=batch, **{name: round(size * GIB) for name, size in sizes.items()}
    )
    assert plan.needed <= plan.free
    return plan.batch, plan.checkpointing


class TestMemoryPlan:
    @pytest.mark.parametrize(
        ("free", "plan"),
        [(16 * MARGIN, (16, False)), (8 * MARGIN, (8, False)), (3.9 * MARGIN, (8, True)), (0.3 * MARGIN, (1, True))],
    )
    def test_the_most_prompts_that_fit_run_together(self, free: float, plan: tuple[int, bool]) -> None:
        assert planned(free) == plan

    def test_two_billion_parameters_fit_beside_the_screen_on_24_gib(self) -> None:
        """28 layers of 2048, rank 32: 35 M numbers in factors; a prompt of 1,300 tokens keeps some 5 GiB, or 0.3 where layers run again."""
        assert planned(24 - 4.4, factors=5 * 4 * 35e6 / GIB, activations=5.0, recomputed=0.33, batch=64) == (32, True)

    def test_what_does_not_fit_is_refused_before_anything_begins(self) -> None:
        with pytest.raises(
            EditError, match=r"tiny cannot be tuned in this memory: expected 0\.31 GiB free for one prompt, got 0\.20"
        ):
            planned(0.2)
