"""Where a model hides its decoder layers, and which of them should or must stay.

Everything Strata knows about the inside of transformers' models stands here. What it does not know yet: layers that share
keys and values, and hybrid stacks whose only layer of a kind must stay.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from vlm_analysis.errors import ModelError


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the model's text decoder.

    Raises:
        ModelError: the model has no transformers configuration.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(
            f"{type(model).__name__} has no transformers configuration: expected a model loaded by transformers."
        )
    return config.get_text_config(decoder=True)


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers, in running order.

    The decoder is `model.get_decoder()`; its list is `.layers`, or else the only `ModuleList` in it whose length is the
    configuration's `num_hidden_layers`.

    Raises:
        ModelError: encoder-decoder models, and models in which no such list, or more than one, is found.
    """
    return find_decoder_path(model)[1]


def find_decoder_path(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the dotted name of the decoder's layer list inside `model`, and the list (see `find_decoder_layers`)."""
    name = type(model).__name__
    count = getattr(text_config(model), "num_hidden_layers", None)
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name} is an encoder-decoder model: expected one causal stack of decoder layers. Choose another model."
        )
    get_decoder: Any = getattr(model, "get_decoder", None)
    decoder = get_decoder() if get_decoder is not None else None
    if decoder is None:
        raise ModelError(f"{name} has no decoder: expected get_decoder() to return one. Is it a vision-language model?")
    lists = {id(m): m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count}
    direct = getattr(decoder, "layers", None)
    found = [direct] if isinstance(direct, nn.ModuleList) and id(direct) in lists else list(lists.values())
    if len(found) != 1:
        raise ModelError(
            f"The decoder layers of {name} were not found: looked in {type(decoder).__name__} for one list of "
            f"{count} modules (num_hidden_layers), found {len(found)}."
        )
    path = next(path for path, module in model.named_modules() if module is found[0])
    return path, found[0]


def protected_layers(model: nn.Module) -> dict[int, str]:
    """Return the layers that are risky to drop, with the reason: first, last, and those after which DeepStack adds vision."""
    n_layers = len(find_decoder_layers(model))
    reasons = {0: "first layer: it turns embeddings into the stream every other layer expects"}
    reasons[n_layers - 1] = "last layer: it prepares the stream for the output head"
    for layer in range(min(_n_deepstack(model), n_layers)):
        reason = (
            "DeepStack: vision features are added after this list position; dropping it moves them to the next layer"
        )
        reasons[layer] = f"{reasons[layer]}; {reason}" if layer in reasons else reason
    return dict(sorted(reasons.items()))


def locked_layers(model: nn.Module) -> dict[int, str]:
    """Return the layers that cannot be dropped, with the reason; none for the architectures known so far."""
    find_decoder_layers(model)
    return {}


def _n_deepstack(model: nn.Module) -> int:
    vision = getattr(model.config, "vision_config", None)
    return len(getattr(vision, "deepstack_visual_indexes", None) or ())
