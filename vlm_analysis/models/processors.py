"""Processors: the model's own, without its video part where torchvision is missing, and checked against the model.

Without torchvision, processors with a video processor cannot be built; a subclass of the model's processor class is then built from
all other parts.
"""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

import transformers
from transformers import AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.processing_utils import ProcessorMixin

from vlm_analysis.errors import ModelError


def load_processor(where: str, config: Any, options: dict[str, Any]) -> Any:
    """Return the processor of a checkpoint; without torchvision, one without its video part."""
    if importlib.util.find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(where, **options)
    base = PROCESSOR_MAPPING.get(type(config), None) or _named_class(where, options)
    if base is None or "video_processor" not in base.get_attributes():
        return AutoProcessor.from_pretrained(where, **options)
    return without_video(base).from_pretrained(where, **options)


def _named_class(where: str, options: dict[str, Any]) -> Any:
    """Return the processor class of transformers that the checkpoint's own files name; None where they name none."""
    try:
        settings, _ = ProcessorMixin.get_processor_dict(where, **options)
    except OSError:
        return None
    return getattr(transformers, str(settings.get("processor_class")), None)


def without_video(base: Any) -> Any:
    """Return a subclass of a processor class that is built from all parts and settings except the video processor."""
    whole = inspect.signature(base.__init__)
    rest = whole.replace(parameters=[p for name, p in whole.parameters.items() if name != "video_processor"])

    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        arguments = rest.bind(self, *args, **kwargs).arguments
        more = arguments.pop("kwargs", {})
        stand_in = _NoVideo()
        state = vars(self)  # while it is built it has the parts of its base, one of them a stand-in
        state["get_attributes"] = base.get_attributes
        state["check_argument_for_proper_class"] = lambda name, part: (
            None if part is stand_in else base.check_argument_for_proper_class(self, name, part)
        )
        base.__init__(**arguments, **more, video_processor=stand_in)
        for name in ("get_attributes", "check_argument_for_proper_class", "video_processor"):
            state.pop(name, None)

    def known_settings(processor_config: dict[str, Any], valid_kwargs: Any) -> Any:
        return base.validate_init_kwargs(processor_config, list(rest.parameters))  # not those of `build`

    build.__signature__ = rest  # type: ignore[attr-defined]
    own: dict[str, Any] = {
        "__init__": build,
        "validate_init_kwargs": staticmethod(known_settings),
        "__module__": base.__module__,
    }
    if base.apply_chat_template is not ProcessorMixin.apply_chat_template:
        own["video_processor"] = _NoVideo()  # SmolVLM's template reads its number of frames, also for images
    return type(base.__name__, (base,), own)


class _NoVideo:
    """Stand-in for a video processor: some processors read its settings when they are built or when they fill a template."""

    slice_mode = downsample_mode = num_frames = fps = None


def check_vocabulary(model: Any, processor: Any, name: str) -> None:
    """Raise ModelError if the tokenizer is missing, or the model has no embedding for its tokens or end token."""
    tokenizer: Any = getattr(processor, "tokenizer", None)
    vocabulary = tokenizer.get_vocab() if tokenizer is not None else {}
    if len(vocabulary) <= len(getattr(tokenizer, "all_special_tokens", ())):
        raise ModelError(f"{name!r} has no tokenizer: expected its files beside the weights. Download it again.")
    rows = model.get_input_embeddings().weight.shape[0]
    mark = getattr(model.config, "image_token_id", None)
    image_tokens = {*getattr(processor, "image_token_ids", ()), *getattr(tokenizer, "added_tokens_decoder", ())} - {
        None
    }
    if isinstance(mark, int) and mark not in image_tokens:
        raise ModelError(
            f"The tokenizer of {name!r} does not fit the model: expected token {mark} for images, which is none of its special "
            "tokens. Use the tokenizer that belongs to the checkpoint."
        )
    ends = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id] if ends is None else ends if isinstance(ends, list) else [ends]
    highest = max([*vocabulary.values(), *(end for end in ends if end is not None)])
    if highest >= rows or not ends:
        raise ModelError(
            f"The tokenizer of {name!r} does not fit the model: token {highest} is used, the model embeds {rows}, and its end "
            f"tokens are {ends}. Use the tokenizer that belongs to the checkpoint."
        )


def bound_vision_tokens(processor: Any, bound: int | None) -> bool:
    """Make the image processor keep images below `bound` vision tokens; False where it has no such setting."""
    image_processor: Any = getattr(processor, "image_processor", None)
    size: Any
    size, merge = getattr(image_processor, "size", None), getattr(image_processor, "merge_size", None)
    longest = getattr(size, "longest_edge", None)
    if bound is None or merge is None or longest is None:
        return False
    pixels = bound * (image_processor.patch_size * merge) ** 2  # in this family `longest_edge` counts pixels
    size.longest_edge = min(longest, pixels)
    size.shortest_edge = min(size.shortest_edge or pixels, size.longest_edge)
    return True
