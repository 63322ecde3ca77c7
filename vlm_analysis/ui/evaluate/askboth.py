"""One prompt asked of the dense and the pruned model: their responses side by side, and the models' input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import PromptError, StrataError, short
from vlm_analysis.evaluation.diff import Piece
from vlm_analysis.progress import Cancelled
from vlm_analysis.prompts.checks import MAX_TEXT
from vlm_analysis.prompts.images import open_image
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.ui.common.drafts import IMAGE_TYPES, preview
from vlm_analysis.ui.common.marks import marked
from vlm_analysis.ui.common.pickers import open_or_stop
from vlm_analysis.ui.common.promptcard import picture_alt
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, model_slot, runner
from vlm_analysis.ui.common.text import done_to, escaped
from vlm_analysis.ui.evaluate.asked import Question, asked, keep_asked
from vlm_analysis.ui.evaluate.askresult import draw_responses
from vlm_analysis.ui.evaluate.askstream import ask_both
from vlm_analysis.ui.evaluate.inputs import EvaluateInputs
from vlm_analysis.words import any_of, sentence
from vlm_analysis.workbench.workspace import clean_name

if TYPE_CHECKING:
    from vlm_analysis.evaluation.run.respond import Step

_LAST = "ask:last"


def side_by_side(inputs: EvaluateInputs) -> None:
    """Draw one prompt with the responses of the dense and the pruned model, asked on a click and kept while the process runs."""
    if not inputs.ready or inputs.prompts is None or inputs.mask is None:
        return
    left, right = st.columns([1, 2])
    with left:
        chosen = _pick_prompt(open_or_stop(inputs.prompts), inputs.prompts.id)
        try:
            own = _own_image()
        except PromptError as error:
            st.error(f"{escaped(error)} The prompt's own image is asked.")
            own = None
        prompt = chosen
        _draw_images(chosen if own is None else Prompt((own,), "An image of your own"))
        if own is not None:
            st.caption("Your image, in place of the prompt's.")
    with right:
        question, pressed, seen = _question_form(chosen, f"ask_question:{inputs.prompts.id}:{chosen.id}")
        try:
            if own is not None or question != chosen.question:
                images = chosen.images if own is None else (own,)
                prompt = replace(chosen, images=images, question=question, answer=None, answers=None)
            belongs = Question(model_slot().fingerprint, inputs.mask.key, prompt.image_hashes, prompt.question)
        except PromptError as error:
            st.error(escaped(error))
            return
        if prompt.answer:
            st.caption(sentence(any_of(len(prompt.answers))) if prompt.answers else "Reference answer")
            st.text("\n".join(prompt.answers or (prompt.answer,)))
    if own is None:
        asks = question if question != chosen.question else ""
        same_line(line_of("ask", inputs.prompts, inputs.mask, prompt=chosen.id, question=asks))
    if seen:
        _show_given(prompt)
    _draw_answers(prompt, inputs.mask, belongs, pressed)


def ask_about(prompts: PromptSet, prompts_id: str, name: str) -> None:
    """Go to Ask both with the prompt of an id, as a button's callback."""
    key = f"ask_prompt:{prompts_id}"
    st.session_state.pop(key, None)
    place = next((place for place, prompt in enumerate(prompts) if str(prompt.id) == name), 0)
    st.session_state.setdefault(_LAST, {})[key] = place
    st.session_state["evaluate_tab"] = "Ask both"


def _pick_prompt(prompts: PromptSet, prompts_id: str) -> Prompt:
    key = f"ask_prompt:{prompts_id}"
    index = st.selectbox(
        "Prompt",
        range(len(prompts)),
        _last(key, 0),
        format_func=lambda at: f"{prompts[at].id} · {short(prompts[at].question, 60)}",
        key=key,
    )
    st.session_state[_LAST][key] = index
    return prompts[index]


def _last(key: str, default: Any) -> Any:
    """Return the value that a widget last had: Streamlit forgets it while the tab is not drawn."""
    return st.session_state.setdefault(_LAST, {}).get(key, default)


def _own_image() -> Image.Image | None:
    """Draw the uploader of an image in place of the prompt's; return the image, None where there is none.

    Raises:
        PromptError: it cannot be opened; the message starts with its name.
    """
    upload = st.file_uploader(
        "Or an image of your own",
        type=IMAGE_TYPES,
        max_upload_size=20,
        key="ask_image",
        help="Asked in place of the prompt's images, with the question at the right. It is not kept.",
    )
    if upload is None:
        return None
    try:
        return _opened(upload.getvalue())
    except PromptError as error:
        raise PromptError(f"{clean_name(upload.name)}: {error}") from error


@st.cache_data(show_spinner=False, max_entries=4)
def _opened(data: bytes) -> Image.Image:
    return open_image(data)


def _draw_images(prompt: Prompt) -> None:
    try:
        for number, name in enumerate(prompt.image_hashes):
            st.image(preview(name, prompt, number), width=192 if number == 0 else 96, alt=picture_alt(prompt, number))
    except PromptError as error:
        st.error(escaped(error))


def _question_form(prompt: Prompt, key: str) -> tuple[str, bool, bool]:
    """Draw the question with its two buttons; returns it and which of them was pressed."""
    with st.form("ask", border=False):
        question = st.text_area(
            "Question",
            _last(key, prompt.question),
            key=key,
            max_chars=MAX_TEXT,
            help="Change it as you like.",
        )
        with st.container(horizontal=True):
            pressed = st.form_submit_button("Ask both", icon=":material/compare_arrows:")
            seen = st.form_submit_button("Show what the model is given", icon=":material/visibility:")
    st.session_state[_LAST][key] = question
    return question.strip(), pressed, seen


def _show_given(prompt: Prompt) -> None:
    try:
        with st.spinner("Preparing the prompt"):
            see_input = bench().given
            text, counts = runner().ask(lambda: see_input(prompt))
    except Exception as error:  # a model's own code raises what it likes
        _say_why(error)
        return
    st.code(text, language=None, wrap_lines=True)
    st.text("Tokens: " + ", ".join(f"{group} {count}" for group, count in counts.items()))
    st.caption(
        "The processor replaces each image placeholder by that image's vision tokens; the answer follows the text."
    )


def _say_why(error: Exception) -> None:
    """Draw why a short question to the model got no answer."""
    if isinstance(error, StrataError):
        st.error(escaped(error))
    elif isinstance(error, (TimeoutError, Cancelled)):
        st.error(f"No answer came: {escaped(error)}. Try again when the running job is done.")
    else:
        st.error(
            f"The model stopped: expected an answer, got {escaped(type(error).__name__)}: {escaped(error)}. "
            "Try another prompt or mask."
        )


def _draw_answers(prompt: Prompt, mask: Edit, belongs: Question, pressed: bool) -> None:
    """Ask both models if that was pressed, and draw what they last answered to what is chosen.

    Where a model breaks off, what both had written until then stays.
    """
    area = st.empty()
    titles = ("Dense model", sentence(done_to(mask)))
    if pressed:
        asked().pop(belongs, None)
        with area.container():
            draw = _Growing(titles)
        try:
            keep_asked(belongs, ask_both(prompt, mask, draw))
        except Exception as error:  # a model's own code raises what it likes
            if draw.begun:
                draw.end()
            else:
                area.empty()
            _say_why(error)
    if (responses := asked().get(belongs)) is not None:
        with area.container():
            draw_responses(responses, titles)


class _Growing:
    """Two columns in which the responses grow, and the button that ends it: any click does, as it runs the script anew."""

    def __init__(self, titles: tuple[str, str]) -> None:
        self.begun = False
        self._said = st.empty()
        self._places: list[DeltaGenerator] = []
        for column, title in zip(st.columns(2), titles, strict=True):
            column.caption(title)
            self._places.append(column.empty())
        self._stop = st.empty()
        self._stop.button("Stop", icon=":material/stop_circle:", key="ask_stop")

    def __call__(self, step: Step | None) -> None:
        if step is None:
            busy = runner().busy
            self._said.caption("Waiting for the running job's next report" if busy else "Asking both models")
            return
        self.begun = True
        self._said.caption("Both models are answering")
        for container, written in zip(self._places, (step.dense, step.pruned), strict=True):
            container.markdown(marked([Piece(written.text, changed=False)], "gray") if written.text else "…")

    def end(self) -> None:
        """Leave what was written, without the button and the caption of the answering."""
        self._said.empty()
        self._stop.empty()
