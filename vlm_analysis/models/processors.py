"""Processors: the model's own, without its video part where torchvision is missing, and checked against the model.

Without torchvision, processors with a video processor cannot be built; a subclass of the model's processor class is then built from
all other parts.
"""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.processing_utils import ProcessorMixin

from vlm_analysis.errors import ModelError


def load_processor(where: str, config: Any, options: dict[str, Any]) -> Any:
    """Return the processor of a checkpoint, complete; without torchvision, one without its video part.

    Raises:
        ModelError: it lacks a setting that the model's configuration does not tell either, or it is a tokenizer alone.
        Exception: any that transformers raises.
    """
    processor = _built(where, config, options)
    if isinstance(processor, PreTrainedTokenizerBase):
        raise ModelError(
            f"{Path(where).name!r} has no processor for images: expected preprocessor_config.json or processor_config.json of a class "
            "that transformers knows, got a tokenizer alone. Add the processor files of the model that it was made from."
        )
    _complete(processor, config, Path(where).name, _settings(where, options))
    return processor


def _built(where: str, config: Any, options: dict[str, Any]) -> Any:
    base = PROCESSOR_MAPPING.get(type(config), None) or _named_class(where, options)
    stock = importlib.util.find_spec("torchvision") is not None
    if stock or base is None or "video_processor" not in base.get_attributes():
        build, parts = AutoProcessor, base
    else:
        build = parts = without_video(base)
    try:
        return build.from_pretrained(where, **options)
    except ValueError as error:
        if "Unrecognized image processor" not in str(error) or parts is None:
            raise
        return _from_parts(parts, where, config, options)


def _from_parts(base: Any, where: str, config: Any, options: dict[str, Any]) -> Any:
    """Return a processor whose files name a class that transformers no longer has, with the present one for this model."""
    made = {
        "image_processor": AutoImageProcessor.from_pretrained(where, config=config, **options),
        "tokenizer": AutoTokenizer.from_pretrained(where, **options),
    }
    return base.from_args_and_dict([made[name] for name in base.get_attributes()], _settings(where, options))


def _complete(processor: Any, config: Any, name: str, named: dict[str, Any]) -> None:
    """Set what the processors of older checkpoints leave to the model's configuration, as LLaVA's did."""
    vision = getattr(config, "vision_config", None)
    patch, side = getattr(vision, "patch_size", None), getattr(vision, "image_size", None)
    known = {
        "patch_size": patch,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "num_image_tokens": (side // patch) ** 2
        if isinstance(side, int) and isinstance(patch, int) and patch
        else None,
    }
    parameters = inspect.signature(type(processor).__init__).parameters
    for setting in known.keys() & parameters.keys():
        if getattr(processor, setting, None) is None and known[setting] is not None:
            setattr(processor, setting, known[setting])
    has_class_token = str(getattr(vision, "model_type", "")).startswith("clip")
    if has_class_token and {"num_additional_image_tokens"} <= parameters.keys() - named.keys():
        processor.num_additional_image_tokens = 1
    if "patch_size" in parameters and processor.patch_size is None:
        raise ModelError(
            f"The processor of {name!r} is incomplete: expected patch_size in processor_config.json, got none there and none in the "
            "configuration of the vision tower. Add it."
        )


def _settings(where: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what processor_config.json says; empty where there is none."""
    try:
        return dict(ProcessorMixin.get_processor_dict(where, **options)[0])
    except OSError:
        return {}


def _named_class(where: str, options: dict[str, Any]) -> Any:
    """Return the processor class of transformers that the checkpoint's own files name; None where they name none."""
    named = _settings(where, options).get("processor_class")
    if named is None:
        try:
            named = ImageProcessingMixin.get_image_processor_dict(where, **options)[0].get("processor_class")
        except OSError:
            return None
    return getattr(transformers, str(named), None)


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
    size: Any = getattr(image_processor, "size", None)
    merge = getattr(image_processor, "merge_size", None)
    longest = getattr(size, "longest_edge", None)
    if bound is None or merge is None or longest is None:
        return False
    pixels = bound * (image_processor.patch_size * merge) ** 2  # in this family `longest_edge` counts pixels
    size.longest_edge = min(longest, pixels)
    size.shortest_edge = min(size.shortest_edge or pixels, size.longest_edge)
    return True
