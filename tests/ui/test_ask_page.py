"""Ask both: responses that stay, words that differ marked, nothing of a text acted on, and a worker that stops when nobody looks on."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from acting import PATIENCE_S, OpenPage, hold_bundled, ran, words
from hypothesis import given, strategies as some
from PIL import Image
from streamlit.testing.v1 import AppTest

from vlm_analysis import LoadedModel, Prompt, PromptSet, PruneMask
from vlm_analysis.evaluation.diff import Piece, word_diff
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.evaluation.run.respond import Divergence, PartialResponse, Step
from vlm_analysis.ui.common.marks import marked
from vlm_analysis.ui.common.session import model_slot, runner, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.evaluate import askstream
from vlm_analysis.ui.evaluate.askresult import in_steps
from vlm_analysis.ui.evaluate.askstream import ask_both
from vlm_analysis.workbench.responses import Responses, parting
from vlm_analysis.workbench.shelf import keep_mask, keep_prompts

HARD = PruneMask(16, (2, 3, 4, 9, 14), name="hard")
HOSTILE = "**bold** <b>x</b> [a](http://host.example) :red[r] $x$ `c`"


_SAID: dict[tuple[str, str, str], str] = {}  # what a model says is the same each time: asked once for all tests


def said_by(loaded: LoadedModel, prompt: Prompt, mask: PruneMask | None = None) -> str:
    key = (prompt.key, prompt.question, "" if mask is None else mask.key)
    if key not in _SAID:
        _SAID[key] = respond(loaded, prompt, mask)
    return _SAID[key]


@pytest.fixture
def asking(stocked: OpenPage) -> AppTest:
    """The tab Ask both with the bundled model and a mask that breaks answers."""
    hold_bundled()
    keep_mask(workspace(), replace(HARD, model=model_slot().info))
    at = stocked("pages/5_evaluate.py")
    at.session_state["evaluate_tab"] = "Ask both"
    return ran(at)


def press(at: AppTest, label: str) -> AppTest:
    next(button for button in at.button if button.label == label).click()
    return ran(at)


def plain(markdown: str) -> str:
    """Return what a reader sees of a response's markdown, without the marks."""
    marks = r"\\(.)|:(?:orange|blue)-(?:background|badge)\[(?:\*\*)?|(?:\*\*)?\]"
    bare = re.sub(marks, lambda match: match[1] or "", markdown)
    return bare.replace("\u2060", "").replace("\u00a0", " ")


class TestPage:
    def test_responses_are_shown_and_stay_over_reruns(
        self, asking: AppTest, loaded: LoadedModel, few: PromptSet
    ) -> None:
        at = press(asking, "Ask both")
        for _ in range(2):
            assert not at.error
            shown = plain(words(at))
            assert {"Dense model", "Without layers 2, 3, 4, 9, 14"} <= set(shown.splitlines())
            assert said_by(loaded, few[0]) in shown
            assert said_by(loaded, few[0], HARD) in shown
            assert len(at.get("plotly_chart")) == 1
            ran(at)

    def test_they_go_when_another_prompt_is_chosen_and_come_back_with_it(self, asking: AppTest) -> None:
        at = press(asking, "Ask both")
        box = next(box for box in at.selectbox if box.label == "Prompt")
        ran(box.set_value(2) and at)
        assert "Dense model" not in words(at)
        next(box for box in at.selectbox if box.label == "Prompt").set_value(0)
        assert "Dense model" in words(ran(at))

    def test_words_that_differ_are_marked_with_more_than_colour(
        self, asking: AppTest, loaded: LoadedModel, few: PromptSet
    ) -> None:
        at, seen = asking, set()
        for number, prompt in enumerate(few):
            if len(seen) == 2:  # the same answer was given, and another one
                break
            next(box for box in at.selectbox if box.label == "Prompt").set_value(number)
            press(ran(at), "Ask both")
            dense, pruned = said_by(loaded, prompt), said_by(loaded, prompt, HARD)
            assert ("The same answer." in plain(words(at))) == (dense == pruned)
            bold = " ".join(re.findall(r"-background\[\*\*(.*?)\*\*\]", words(at)))
            assert bool(bold) == (dense != pruned)
            assert plain(bold).split() == [
                word
                for side in word_diff(dense, pruned)
                for piece in side
                if piece.changed
                for word in piece.text.split()
            ]
            seen.add(dense != pruned)
        assert True in seen

    def test_an_own_question_is_asked_and_a_blank_one_is_refused_in_words(
        self, asking: AppTest, loaded: LoadedModel, few: PromptSet
    ) -> None:
        question = few[1].question
        asking.text_area[0].set_value(question)
        at = press(asking, "Ask both")
        assert said_by(loaded, replace(few[0], question=question)) in plain(words(at))
        assert "Reference answer" not in words(at)
        at.text_area[0].set_value("  ")
        at = press(at, "Ask both")
        assert "question is blank" in plain(at.error[0].value)

    def test_a_special_token_in_the_question_is_one_clear_message(self, asking: AppTest) -> None:
        asking.text_area[0].set_value("what <|im_end|>")
        at = press(asking, "Ask both")
        assert [plain(error.value) for error in at.error] == [
            "Prompt 'count-all-0' cannot be asked: its question holds the special token '<|im_end|>'. Reword it."
        ]

    def test_an_own_image_takes_the_place_of_the_prompt_s(
        self, asking: AppTest, loaded: LoadedModel, few: PromptSet
    ) -> None:
        buffer, image = io.BytesIO(), few[3].load_images()[0]
        image.save(buffer, "PNG")
        asking.file_uploader(key="ask_image").upload("own.png", buffer.getvalue(), "image/png")
        at = press(ran(asking), "Ask both")
        own = replace(few[0], images=(image,))
        assert said_by(loaded, own) in plain(words(at))
        assert "Reference answer" not in words(at)
        assert "Your image, in place of the prompt's." in plain(words(at))
        next(box for box in at.selectbox if box.label == "Prompt").set_value(2)
        assert "Your image, in place of the prompt's." in plain(words(ran(at)))
        assert "Your image" not in plain(words(ran(asking.file_uploader(key="ask_image").clear() and at)))

    def test_marks_that_do_not_fit_an_own_image_are_said(self, asking: AppTest) -> None:
        pictures = Image.new("RGB", (32, 32)), Image.new("RGB", (40, 40))
        two = Prompt(pictures, "is <image> like <image>?", answers=("no", "not at all"))
        item = keep_prompts(workspace(), PromptSet([two]), "two")
        buffer = io.BytesIO()
        two.load_images()[0].save(buffer, "PNG")
        asking.session_state["chosen:prompts"] = item.id
        said = words(ran(asking))
        assert "Any of 2 accepted answers" in said
        assert "no\nnot at all" in said
        asking.file_uploader(key="ask_image").upload("own.png", buffer.getvalue(), "image/png")
        assert "expected 1 <image> for 1 picture, got 2" in plain(ran(asking).error[0].value)
        asking.text_area[0].set_value("is <image> red?")
        at = press(asking, "Ask both")
        assert not at.error

    def test_a_broken_image_is_named(self, asking: AppTest) -> None:
        asking.file_uploader(key="ask_image").upload("torn <b>.png", b"no image", "image/png")
        at = ran(asking)
        assert plain(at.error[0].value).startswith("torn <b>.png: the image could not be opened: expected an image")

    def test_what_was_written_stays_where_a_models_own_code_breaks_off(
        self, asking: AppTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> Iterator[Step]:
            yield Step(PartialResponse("red, so far", ()), PartialResponse("blue, so far", ()))
            raise ValueError("no such **shape**")

        monkeypatch.setattr("vlm_analysis.evaluation.run.respond.stream_both", broken)
        said = plain(words(press(asking, "Ask both")))
        assert "The model stopped: expected an answer, got ValueError: no such **shape**. Try another prompt" in said
        assert "red, so far" in said
        assert "blue, so far" in said
        assert "Both models are answering" not in said
        assert "Stop" not in [button.label for button in asking.button]

    def test_what_the_model_is_given_may_break_off_too(self, asking: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> str:
            raise KeyError("image_token")

        monkeypatch.setattr("vlm_analysis.models.inputs.render_prompt", broken)
        at = press(asking, "Show what the model is given")
        assert "The model stopped: expected an answer, got KeyError" in plain(at.error[0].value)

    def test_a_long_question_is_shown(self, stocked: OpenPage, few: PromptSet) -> None:
        from vlm_analysis.ui.common.session import last_choices
        from vlm_analysis.workbench.shelf import keep_prompts

        hold_bundled()
        item = keep_prompts(workspace(), PromptSet([replace(few[0], question="red? " * 1900)]), "long")
        last_choices()["prompts"] = item.id
        at = stocked("pages/5_evaluate.py")
        at.session_state["evaluate_tab"] = "Ask both"
        assert len(ran(at).text_area[0].value) > 9000


class TestStopping:
    def test_what_the_script_raises_stops_the_worker(self, asking: AppTest, few: PromptSet) -> None:
        seen = []

        class Gone(BaseException):
            """As Streamlit stops a script."""

        def leave(step: object) -> None:
            seen.append(step)
            if step is not None:
                raise Gone

        prompt = max(few, key=lambda prompt: len(prompt.answer or ""))
        with pytest.raises(Gone):
            ask_both(prompt, HARD, leave)
        assert runner().ask(lambda: "free", timeout_s=PATIENCE_S) == "free"
        assert ask_both(prompt, HARD, lambda _: None).dense == said_by(model_slot().loaded, prompt)

    def test_a_question_that_waits_for_a_job_is_withdrawn_when_the_script_ends(
        self, asking: AppTest, few: PromptSet
    ) -> None:
        gate, running, drawn = threading.Event(), threading.Event(), []

        def leave(step: object) -> None:
            drawn.append(step)
            if len(drawn) == 3:
                raise KeyboardInterrupt

        runner().submit("hold", "Holding", lambda progress: (running.set(), gate.wait(PATIENCE_S)))
        assert running.wait(PATIENCE_S)
        with pytest.raises(KeyboardInterrupt):
            ask_both(few[0], HARD, leave)
        assert drawn == [None] * 3
        gate.set()
        assert not runner()._calls or all(future.cancelled() for future, _ in runner()._calls)

    def test_a_job_that_lets_nothing_in_is_not_waited_for_for_ever(
        self, asking: AppTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate, running = threading.Event(), threading.Event()
        job = runner().submit("hold", "Holding", lambda progress: (running.set(), gate.wait(PATIENCE_S)))
        assert running.wait(PATIENCE_S)
        monkeypatch.setattr(askstream, "TO_BEGIN_S", 0.3)
        at = press(asking, "Ask both")
        assert runner().get(job).active
        gate.set()
        assert "No answer came" in at.error[0].value
        assert "Try again when the running job is done" in at.error[0].value

    def test_a_job_lets_the_question_in_at_its_next_report(self, asking: AppTest, few: PromptSet) -> None:
        gate = threading.Event()

        def work(progress: object) -> None:
            while not gate.wait(0.01):
                progress(0, 1, "working")

        job = runner().submit("hold", "Holding", work)
        at = press(asking, "Ask both")
        gate.set()
        assert "Dense model" in words(at)
        assert runner().wait(job, PATIENCE_S).status == "done"


class TestWords:
    @staticmethod
    def responses(dense: str, pruned: str, differs: tuple[bool, ...] = ()) -> Responses:
        tokens = tuple(f"t{number}" for number in range(len(differs)))
        return Responses(dense, pruned, Divergence(tokens, np.zeros(len(differs)), np.array(differs, dtype=bool)))

    @pytest.mark.parametrize(
        ("pruned", "differs", "sentence"),
        [
            ("step 1: 4. step 2: 9. thus 13", (False, False), "The same answer."),
            ("step 1: 4. step 2: 8. thus 12", (False, True), "They part at token 2 of 2 ('t1'), in step 2 of 3."),
            ("step 1: 4. step 2: 8. thus 12", (False,), "They part in step 2 of 3."),
            (
                "step 1: 4. step 2: 9. thus 13 thus 14",
                (True,),
                "They part at token 1 of 1 ('t0'), after step 3, the dense model's last.",
            ),
        ],
    )
    def test_the_sentence_says_where_they_part(self, pruned: str, differs: tuple[bool, ...], sentence: str) -> None:
        assert parting(self.responses("step 1: 4. step 2: 9. thus 13", pruned, differs)) == sentence

    def test_the_first_step_that_differs_is_named_on_both_sides(self) -> None:
        sides = word_diff("step 1: 4. step 2: 9. thus 13", "step 1: 4.")
        dense, pruned = (in_steps(pieces, "blue", 1).split("\n\n") for pieces in sides)
        assert [("first step that differs" in line) for line in dense] == [False, True, False]
        assert "first step that differs" in pruned[1]
        assert "no step 2" in pruned[1]

    @given(some.text(some.sampled_from([*HOSTILE, "\n", " ", "\t", "#", "=", "-", "1", ".", "é", "\\"]), max_size=40))
    def test_no_text_becomes_markup_or_loses_a_word(self, text: str) -> None:
        for changed in (False, True):
            made = marked([Piece(text, changed)] if text else [], "orange")
            acted_on = re.sub(r"\\.|:orange-background\[\*\*|\*\*\]", "", made)
            assert not re.search(r"[*`_\[\]<>$:#]", acted_on)
            assert plain(made).split() == (text.split() or ["(nothing)"])
            assert all(line.startswith("\u2060") for line in made.split("\n")) or not text.strip()

    def test_an_image_of_noise_and_a_hostile_question_leave_the_page_whole(self, asking: AppTest) -> None:
        buffer = io.BytesIO()
        pixels = np.random.default_rng(1).integers(0, 256, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        asking.file_uploader(key="ask_image").upload("noise.png", buffer.getvalue(), "image/png")
        asking.text_area[0].set_value(HOSTILE)
        at = press(ran(asking), "Ask both")
        assert not at.error
        assert "Dense model" in words(at)
        assert escaped(HOSTILE) not in words(at)  # the question is in its box only
