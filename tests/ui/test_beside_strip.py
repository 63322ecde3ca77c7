"""What stands beside the strip: what is left of the model, what is known of the mask, and when it is evaluated by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from acting import OpenPage, ended, hold_bundled, ran, send, strip
from streamlit.testing.v1 import AppTest

from vlm_analysis import Cost, Evaluation, LoadedModel, PromptSet, PruneMask, evaluate, retention, retention_interval
from vlm_analysis.errors import StrataError
from vlm_analysis.progress import Progress
from vlm_analysis.ui.common.sent import read_asked, read_sent
from vlm_analysis.ui.common.session import model_slot, runner
from vlm_analysis.ui.masks.strip import background
from vlm_analysis.ui.masks.strip.left import BY_LAYERS, BY_PARAMETERS, costs_of
from vlm_analysis.ui.masks.strip.standing import kept_of

PAGE = "pages/4_masks.py"
LIMIT_S = 60


def ask(at: AppTest, *, by_hand: bool = False) -> dict[str, Any]:
    """Ask as the strip does when the mask has come to rest; return the result that it is given."""
    there = strip(at)
    message = {"base": there["base"], "number": there["answered"] + 1, "by_hand": by_hand}
    at.session_state["mask_strip"] = {"asked": message}
    result: dict[str, Any] = strip(ran(at))["result"]
    return result


def result(at: AppTest) -> dict[str, Any]:
    found: dict[str, Any] = strip(ran(at))["result"]
    return found


class Other:
    """Other work, which holds the runner until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, progress: Progress) -> None:
        assert self.go.wait(LIMIT_S)


class TestLeft:
    def test_time_is_measured_else_by_layers_else_by_parameters(self, loaded: LoadedModel) -> None:
        model = loaded.info
        halves = [[0.01] * 15 + [0.02]] * 2
        cost = Cost(
            PruneMask(16, (5, 9)),
            model,
            "cpu",
            1,
            1,
            9.0,
            4,
            (9, 8),
            (36, 32),
            [[4.0] * 3, [3.0] * 3],
            [[1.0] * 3] * 2,
            halves,
        )
        by_cost = costs_of(model, [cost])
        assert (by_cost["shares"], by_cost["shared"]) == (halves[0], BY_LAYERS)
        assert by_cost["timed"]["5,9||||"][0] == "0.75"
        assert costs_of(model, layer_share=np.full(16, 0.05))["shares"] == [0.05] * 16
        bare = costs_of(model)
        assert (bare["shared"], sum(bare["shares"])) == (
            BY_PARAMETERS,
            pytest.approx(sum(model.layer_parameters) / model.n_parameters),
        )
        assert (bare["total"], bare["width"]) == (model.n_parameters, 4)
        assert costs_of(model, quantised=True)["width"] is None
        assert costs_of(replace(model, layer_parameters=(), n_parameters=0))["shares"] is None


@pytest.fixture(scope="module")
def pair(loaded: LoadedModel, few: PromptSet) -> tuple[Evaluation, Evaluation]:
    dense = evaluate(loaded, few)
    return evaluate(loaded, few, PruneMask(16, (5, 9)), reference=dense), dense


class TestKept:
    def test_each_domain_has_its_retention_and_interval(self, pair: tuple[Evaluation, Evaluation]) -> None:
        mask, dense = pair
        told = kept_of(mask, dense, "a few")
        assert {row["name"]: row["share"] for row in told["rows"]} == retention(mask, dense).to_dict()
        assert {row["interval"] for row in told["rows"]} == {"no interval: 3 groups"}
        assert told["words"] == "Retention on a few, with its 90 % interval:"

    def test_the_score_that_tells_something_is_told(self, pair: tuple[Evaluation, Evaluation]) -> None:
        mask, dense = (replace(one, by_prompt=one.by_prompt.assign(exact_match=False)) for one in pair)
        many = [replace(one, by_prompt=one.by_prompt.assign(domain="all")) for one in (mask, dense)]
        told = kept_of(many[0], many[1], "a few")
        low, high = retention_interval(many[0], many[1], "all", metric="kl_to_dense")
        assert told["words"].startswith("Retention of KL to dense on a few")
        assert told["rows"][0]["interval"] == f"{low:.0%} to {high:.0%}"
        assert "The dense model matches no answer exactly" in told["more"]


class TestBackground:
    def test_what_was_measured_is_known_without_the_model(self, stocked: OpenPage) -> None:
        at = stocked(PAGE)
        assert strip(at)["result"]["state"] == "dense"
        known = strip(send(at, (5, 9)))["result"]
        assert (known["state"], known["edit"], len(known["rows"])) == ("known", "5,9||||", 2)
        other = strip(send(at, (4,)))["result"]
        assert other["state"] == "missing"
        assert "Load pocket-vl on the Model page" in other["words"]
        assert ask(at)["state"] == "missing"
        assert not runner().list()

    def test_a_mask_at_rest_is_evaluated_once_and_then_known(self, stocked: OpenPage) -> None:
        hold_bundled()
        at = send(stocked(PAGE), (4,))
        assert strip(at)["result"]["state"] == "ready"
        assert ask(at)["state"] == "running"
        assert ended(background.JOB).status == "done"
        assert (result(at)["state"], result(at)["edit"]) == ("known", "4||||")
        assert ask(at)["state"] == "known"
        assert len(runner().list()) == 1
        assert strip(send(at, (6,)))["result"]["seconds"] > 0  # as seen

    def test_the_next_edit_stops_it_but_not_what_was_asked_for(
        self, stocked: OpenPage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hold_bundled()
        at, other = stocked(PAGE), Other()
        monkeypatch.setattr(background, "_work", lambda *arguments: other)
        ask(send(at, (4,)))
        job = runner().latest(background.JOB)
        assert job is not None
        send(at, (4, 6))
        stopped = runner().get(job.id)
        assert stopped is not None
        assert stopped.cancelling
        other.go.set()
        assert ended(background.JOB)
        other.go.clear()
        assert ask(at, by_hand=True)["state"] == "running"
        send(at, (4, 6, 7))
        asked = runner().latest(background.JOB)
        assert asked is not None
        assert not asked.cancelling
        other.go.set()

    def test_other_work_goes_first_and_ends_it(self, stocked: OpenPage) -> None:
        hold_bundled()
        at, other = send(stocked(PAGE), (4,)), Other()
        runner().submit("other", "Other", other)
        assert ask(at)["state"] == "waiting"
        assert len(runner().list()) == 1
        other.go.set()
        assert ended("other").status == "done"
        assert ask(at)["state"] == "running"
        assert ended(background.JOB).status == "done"

    def test_one_that_gives_way_is_cancelled_by_its_next_report(self) -> None:
        wanted = background.Wanted(PruneMask(16, (4,)), None, 6, "model")  # type: ignore[arg-type]
        seen: list[int] = []

        def call(*arguments: Any, on_progress: Progress) -> None:
            for done in range(3):
                seen.append(done)
                on_progress(done, 3, "")

        with pytest.raises(background.Cancelled):
            background._work(call, wanted, lambda: len(seen) == 2, None)(lambda *report: None)
        assert seen == [0, 1]

    def test_a_failure_is_told_in_a_line_and_not_tried_again(
        self, stocked: OpenPage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hold_bundled()
        at = send(stocked(PAGE), (4,))

        def fails(*arguments: Any) -> Callable[[Progress], None]:
            def work(progress: Progress) -> None:
                raise StrataError("The disk is full: expected room, got none. Free some.")

            return work

        monkeypatch.setattr(background, "_work", fails)
        ask(at)
        assert ended(background.JOB).status == "failed"
        for _ in range(2):
            told = ask(at)
            assert (told["state"], told["words"]) == (
                "failed",
                "The evaluation failed. The disk is full: expected room, got none. Free some.",
            )
        assert len(runner().list()) == 1

    def test_what_takes_long_waits_for_the_button(self, stocked: OpenPage, few: PromptSet) -> None:
        hold_bundled()
        at = stocked(PAGE)
        model_slot().seen.add(few.fingerprint, len(few), background.MOST_S + 1)
        told = ask(send(at, (4,)))
        assert (told["state"], told["seconds"] > background.MOST_S) == ("long", True)
        assert not runner().list()
        assert ask(at, by_hand=True)["state"] == "running"
        assert ended(background.JOB).status == "done"

    def test_the_switch_turns_it_off(self, stocked: OpenPage) -> None:
        hold_bundled()
        at = send(stocked(PAGE), (4,), auto=False)
        assert ask(at)["state"] == "ready"
        assert not runner().list()


class TestNext:
    def test_the_order_is_sent_whole_and_the_criterion_can_be_chosen(self, stocked: OpenPage) -> None:
        at = stocked(PAGE)
        first = strip(at)["next"]
        assert (first["criterion"], first["title"], sorted(first["order"])) == (
            "block-influence",
            "Block influence",
            list(range(16)),
        )
        other = strip(send(at, (), next_by="target-aware"))["next"]
        assert other["criterion"] == "target-aware"
        assert other["order"] != first["order"]
        assert "important-tokens" not in [name for name, _ in other["choices"]]  # attention was not recorded
        assert strip(send(at, (), next_by=""))["next"]["order"] == []


def test_questions_and_choices_are_read_without_trust() -> None:
    asked = read_asked({"base": "m:1", "number": 3, "by_hand": 1})
    assert asked is not None
    assert (asked.base, asked.number, asked.by_hand) == ("m:1", 3, False)
    assert [read_asked(one) for one in (None, [], {}, {"number": "3"}, {"number": True})] == [None] * 5
    message = {"base": "m:1", "number": 3, "dropped": [], "own": [], "next_by": "<b>", "auto": "no"}
    sent = read_sent(message, 8)
    assert sent is not None
    assert (sent.view.next_by, sent.view.auto) == (None, True)
