"""The Similarity page's look at single prompts: a line of layers for each, down to tokens, vision tokens over the image."""

from __future__ import annotations

import numpy as np
import streamlit as st
from PIL import Image

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.shorthand import shortened
from vlm_analysis.edits.skipping import vision_row
from vlm_analysis.errors import StrataError
from vlm_analysis.prompts.places import order_of
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.recording.maps import TokenMap
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.address import follow, tell
from vlm_analysis.ui.common.downloads import PICTURE
from vlm_analysis.ui.common.editor import as_edit, begin_editing
from vlm_analysis.ui.common.held import vision_of
from vlm_analysis.ui.common.promptcard import picture_alt
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.similarity.layercard import prompts_of_recording

PAGE = 30  # prompts drawn at once


def prompts_view(recording: Recording, group: str) -> None:
    """Draw prompts as rows of layers, one domain at a time, and the chosen prompt closer."""
    from vlm_analysis.figures.heatmaps import similarity_heatmap

    follow("domain", "drill_domain", recording.domain_names)
    domain = st.selectbox("Domain", recording.domain_names, key="drill_domain")
    tell("domain", domain)
    indices = [index for index, name in enumerate(recording.domains) if name == domain]
    pages = -(-len(indices) // PAGE)
    page = st.number_input(f"Page of {pages}", 1, pages, 1, key="drill_page") if pages > 1 else 1
    shown = indices[(page - 1) * PAGE : page * PAGE]
    names = [recording.prompt_ids[index] for index in shown]
    values = recording.prompt_similarity(None, group)[shown]
    st.plotly_chart(
        similarity_heatmap(values, names),
        key="drill-heatmap",
        config=PICTURE,
        alt=f"Similarity of each layer's input and output, by prompt of {domain}",
    )
    index = st.selectbox("Prompt", shown, format_func=lambda index: recording.prompt_ids[index], key="drill_prompt")
    _one(recording, index)


def _one(recording: Recording, index: int) -> None:
    prompt = prompts_of_recording(recording).get(recording.prompt_ids[index])
    if prompt is None:
        st.caption(
            "The prompt set of this recording is not in the workspace, so its question and images cannot be shown."
        )
    else:
        st.text(f"{prompt.question}\n→ {' / '.join(prompt.answers or ()) or prompt.answer or 'no reference answer'}")
    if recording.maps is None:
        st.info("This recording has no token maps. Record with token maps (Options, above) to look at single tokens.")
        _images(prompt)
        return
    try:
        token_map = recording.token_map(index)
    except StrataError as error:
        st.error(escaped(error))
        return
    _token_picture(token_map, recording)
    _over_images(token_map, prompt, recording.n_layers)


def _token_picture(token_map: TokenMap, recording: Recording) -> None:
    from vlm_analysis.figures.recorded import token_heatmap
    from vlm_analysis.figures.skipping import mark_skipped

    figure = token_heatmap(token_map.cosine, token_map.kinds, token_map.texts)
    begin_editing(recording.model)
    edit = as_edit()
    shown = not vision_of(edit).is_empty and st.toggle(
        "Show where the picture is still read",
        value=True,
        key="token_edit",
        help="Under the edit in the editor. The cosines are those of the dense model.",
    )
    if shown:
        st.caption(escaped(_where_read(edit)))
        figure = mark_skipped(figure, token_map.kinds, _what_it_does(edit))
    st.plotly_chart(
        figure,
        key="token-heatmap",
        config=PICTURE,
        alt="Similarity at every layer, by token",
    )
    st.caption(
        "Every token's cosine at every layer, from float16 on disk: beyond 0.999 neighbouring values run together."
    )


def _what_it_does(edit: Edit) -> list[str]:
    """Return for each layer "full", "frozen" or "absent", as vision tokens are, or "dropped"."""
    return ["dropped" if layer in edit.gone else one for layer, one in enumerate(vision_row(edit))]


def _where_read(edit: Edit) -> str:
    """Return in which layers text reads the picture under an edit, in a sentence."""
    does = _what_it_does(edit)
    read = [layer for layer, one in enumerate(does) if one in ("full", "frozen")]
    frozen = [layer for layer, one in enumerate(does) if one == "frozen"]
    where = f"in {_spans(read)}" if read else "in no layer"
    return f"Under the edit in the editor text reads the picture {where}" + (
        f"; its tokens are not updated in {_spans(frozen)}." if frozen else "."
    )


def _spans(layers: list[int]) -> str:
    """Return "layer 4", or "layers 0-3, 7"."""
    return f"layer{'' if len(layers) == 1 else 's'} {shortened(layers, ', ')}"


def _over_images(token_map: TokenMap, prompt: Prompt | None, n_layers: int) -> None:
    from vlm_analysis.figures.recorded import image_overlay

    images = _images(prompt, draw=False)
    images = tuple(images[place] for place in order_of(prompt.parts)) if prompt is not None and images else ()
    if not token_map.grids or len(images) != len(token_map.grids):
        st.caption(
            "Where the vision tokens of this prompt lie in its images is not known, so they are not drawn over them."
        )
        _images(prompt)
        return
    apart = np.nan_to_num(np.nanstd(token_map.cosine[:, token_map.kinds == 0].astype(np.float32), axis=1))
    layer = st.slider(
        "Layer",
        0,
        n_layers - 1,
        int(apart.argmax()),
        key="overlay_layer",
        help="Starts at the layer whose vision tokens differ most.",
    )
    for number, (image, (first, rows, columns)) in enumerate(zip(images, token_map.grids, strict=True)):
        values = token_map.cosine[layer, first : first + rows * columns].reshape(rows, columns)
        left, right = st.columns([3, 2])
        left.plotly_chart(
            image_overlay(image, values),
            key=f"overlay-{number}",
            config=PICTURE,
            alt=f"Similarity at layer {layer} over picture {number + 1}",
        )
        right.image(image, width=320, alt=f"Picture {number + 1} of the prompt")
        low, high = np.unravel_index(np.nanargmin(values), values.shape), np.nanmin(values)
        right.caption(f"Layer {layer} changes the token in row {low[0]}, column {low[1]} most: cosine {high:.4f}.")


def _images(prompt: Prompt | None, *, draw: bool = True) -> tuple[Image.Image, ...]:
    if prompt is None:
        return ()
    try:
        images = prompt.load_images()
    except StrataError as error:
        st.error(escaped(error))
        return ()
    if draw:
        st.image(list(images), width=240, alt=[picture_alt(prompt, i) for i in range(len(images))])
    return images
