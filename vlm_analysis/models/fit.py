"""Estimate whether a model fits: its parameters by part, from its configuration alone, against the free memory.

The model's class is built on PyTorch's meta device, where tensors have shapes and no memory, so a model of any size is counted in
a second or two. Loading peaks at the weights in the chosen precision: they are read tensor by tensor, without a second copy.
"""

from __future__ import annotations

import copy
import math
import re
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from transformers import AutoModelForImageTextToText

from vlm_analysis.errors import ModelError
from vlm_analysis.models.files import stored_bytes
from vlm_analysis.models.layers import find_decoder_path
from vlm_analysis.models.memory import GIB, free_bytes, gib
from vlm_analysis.models.source import Source, guarded, open_source

PARTS = ("vision tower", "projector", "embeddings", "decoder layers", "head", "other")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SAVED_SHARE = 0.25
_FEW, _LEAST_BYTES = 10**8, 0.5  # parameters that are looked at closely; bytes of each on disk, at the least
_MARGIN_SHARE, _MARGIN_MOST = 0.1, GIB // 2
_MOST_PARAMETERS, _MOST_MODULES, _LONGEST_S = 10**13, 2_000_000, 30.0
# The parts beside the decoder by name; the first match counts. Qwen's merger is inside the vision tower.
_BESIDE = (
    (re.compile(r"audio|speech|generation|vqmodel|vq_"), "other"),
    (
        re.compile(r"project|connector|merger|adapt|align|resampl|qformer|abstractor|perceiver|embed_vision|mm_"),
        "projector",
    ),
    (re.compile(r"vision|visual|vit|image|sam_|patch"), "vision tower"),
)
_IN_VISION = re.compile(r"merger|aligner|adapter$")


@dataclass(frozen=True)
class FitEstimate:
    """The memory that a model needs, part by part, and the free memory.

    Attributes:
        name: name on screen.
        parts: parameters by part, in the order of `PARTS`; a head tied to the embeddings is counted once, with these.
        layers: parameters of each decoder layer.
        dtype: the checkpoint's own precision.
        file_bytes: bytes of the weights on disk; None for a hub id, of which only the configuration is read.
        quantiser: quantisation method of the weights; None where they are not quantised.
        device: the device whose memory `free` is: "cpu", "cuda", ….
        free: free bytes there, including those of the present model, which is unloaded first.
    """

    name: str
    parts: dict[str, int]
    layers: tuple[int, ...]
    dtype: str
    file_bytes: int | None
    quantiser: str | None
    device: str
    free: int

    @property
    def n_parameters(self) -> int:
        return sum(self.parts.values())

    def weight_bytes(self, dtype: str) -> int:
        """Return the bytes of the weights; quantised weights stay as they are stored, whatever the precision."""
        if self.quantiser is not None and self.file_bytes is not None:
            return self.file_bytes
        return self.n_parameters * _width(dtype)

    def needed_bytes(self, dtype: str) -> int:
        """Return the bytes to load and run: the weights, and for activations (our choice) a tenth of them and up to 512 MiB."""
        weights = self.weight_bytes(dtype)
        return weights + int(weights * _MARGIN_SHARE) + min(weights, _MARGIN_MOST)

    def fits(self, dtype: str) -> bool:
        return self.needed_bytes(dtype) <= self.free

    @property
    def auto_dtype(self) -> str | None:
        """Return the precision of "auto": on a CPU float32 where it fits, else bfloat16; elsewhere the checkpoint's. None: nothing fits."""
        candidates = ("float32", "bfloat16") if self.device == "cpu" and self.quantiser is None else (self.dtype,)
        return next((dtype for dtype in candidates if self.fits(dtype)), None)

    @property
    def reason(self) -> str:
        """Return the reason for the choice of "auto", in a sentence."""
        if self.auto_dtype is None:
            return self.refusal(self.dtype_for("auto"))
        required = f"{gib(self.needed_bytes(self.auto_dtype))} of {gib(self.free)} free"
        if self.quantiser is not None:
            return f"the checkpoint's own, as its weights are quantised with {self.quantiser} ({required})"
        if self.device != "cpu":
            return f"the checkpoint's own, on a GPU ({required})"
        if self.auto_dtype == "float32":
            return f"the most exact on a CPU, and it fits ({required})"
        return f"float32 would need {gib(self.needed_bytes('float32'))}, this {required}"

    def dtype_for(self, requested: str) -> str:
        """Return the precision that is `requested`; for "auto" where nothing fits, the smallest it tries."""
        if requested != "auto":
            return requested
        return self.auto_dtype or ("bfloat16" if self.device == "cpu" and self.quantiser is None else self.dtype)

    def part_bytes(self, dtype: str) -> dict[str, int]:
        """Return the bytes of each part; for quantised weights, of which only the sum is known, in proportion to the parameters."""
        scale = self.weight_bytes(dtype) / max(1, self.n_parameters)
        return {name: round(parameters * scale) for name, parameters in self.parts.items()}

    def summary(self, dtype: str) -> str:
        """Return the memory that the model needs, in a sentence."""
        kind = f"weights quantised with {self.quantiser}" if self.quantiser else f"{dtype} weights"
        return (
            f"{count(self.n_parameters)} parameters: {gib(self.weight_bytes(dtype))} of {kind}, with a margin for activations "
            f"{gib(self.needed_bytes(dtype))} of {gib(self.free)} free."
        )

    def saving_summary(self, dtype: str) -> str:
        """Return the saving of dropping a quarter of the layers, in a sentence."""
        layers, parameters, n_bytes = self.saving(dtype)
        if not layers:
            return f"It has {len(self.layers)} decoder layers: too few to drop a quarter of them."
        share, of_layers = parameters / max(1, self.n_parameters), layers / len(self.layers)
        return (
            f"Without {layers} of its {len(self.layers)} decoder layers ({of_layers * 100:.0f} %) it would have "
            f"{count(parameters)} parameters fewer and take {gib(n_bytes)} less, {share * 100:.0f} % of its weights."
        )

    def saving(self, dtype: str, share: float = SAVED_SHARE) -> tuple[int, int, int]:
        """Return (layers, parameters, bytes) that dropping a share of the decoder layers, rounded down, would save on average."""
        n_layers = math.floor(len(self.layers) * share)
        parameters = round(sum(self.layers) / len(self.layers) * n_layers)
        scale = self.weight_bytes(dtype) / max(1, self.n_parameters)
        return n_layers, parameters, round(parameters * scale)

    def most_layers(self, dtype: str) -> int:
        """Return how many decoder layers of average size would fit beside all other parts."""
        per_parameter = self.needed_bytes(dtype) / max(1, self.n_parameters)
        rest = self.n_parameters - sum(self.layers)
        layer = sum(self.layers) / len(self.layers)
        return max(0, min(len(self.layers), math.floor((self.free / per_parameter - rest) / max(1.0, layer))))

    def refusal(self, dtype: str) -> str:
        """Return the message for a precision that does not fit: how much memory is missing, and what would fit."""
        required = self.needed_bytes(dtype)
        smaller = next((other for other in BYTES if _width(other) < _width(dtype) and self.fits(other)), None)
        layers = self.most_layers(dtype)
        steps = [f"choose precision {smaller!r}"] if smaller and self.quantiser is None else []
        steps += [f"free {gib(required - self.free)} more", "choose a model of up to " + self._largest(dtype)]
        steps += ["spread it over devices and the disk (device map 'auto')"] if self.quantiser is None else []
        steps += [f"prune it to {layers} of its {len(self.layers)} layers on a larger machine"] if layers else []
        text = ", or ".join(steps)
        return (
            f"{self.name!r} does not fit into memory: expected {gib(required)} free for {dtype} weights and a margin, "
            f"got {gib(self.free)}. {text[0].upper()}{text[1:]}."
        )

    def _largest(self, dtype: str) -> str:
        return f"{count(self.free / (self.needed_bytes(dtype) / max(1, self.n_parameters)))} parameters"


def estimate_fit(
    source: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | torch.device = "cpu",
    given_back: int = 0,
) -> FitEstimate:
    """Estimate whether a model fits, from its configuration alone (and, of a folder, the headers of its files).

    Args:
        source: "pocket-vl" or "pocket-vl-steps" (bundled), a folder saved by transformers, or a hub id.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run Python code that comes with the checkpoint.
        device: the device to run on; "auto" is a GPU where there is one.
        given_back: bytes of the present model, which is unloaded first.

    Raises:
        ModelError: the source is missing or incomplete, is not a vision-language model, or has impossible sizes.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return fit_of(open_source(source, revision, trust_remote_code), torch.device(device), given_back)


def fit_of(source: Source, device: torch.device, given_back: int = 0) -> FitEstimate:
    """Estimate whether an opened source fits (see `estimate_fit`)."""
    parts, layers = count_parts(build_empty(source))
    if not layers:
        raise ModelError(f"{source.name!r} has no decoder layers: expected at least one. Choose another model.")
    file_sizes = None if source.files is None else stored_bytes(list(source.files))
    own = getattr(source.config, "dtype", None) or getattr(source.config.get_text_config(), "dtype", None)
    dtype = str(own or "float32").removeprefix("torch.")
    total = None if file_sizes is None else sum(file_sizes.values())
    if total is not None and source.quantiser is None:
        _check_stored(source.name, sum(parts.values()), total)
    free = free_bytes(device) + given_back
    return FitEstimate(source.name, parts, layers, dtype, total, source.quantiser, device.type, free)


def _check_stored(name: str, n_parameters: int, n_bytes: int) -> None:
    """Raise ModelError where the weights are far too few for the configuration: the rest would be made in memory, at random."""
    if n_parameters > _FEW and n_bytes < n_parameters * _LEAST_BYTES:
        raise ModelError(
            f"The weights of {name!r} do not fit its configuration: expected {count(n_parameters)} parameters, got {gib(n_bytes)} of "
            "them. Fix config.json or download the checkpoint again."
        )


def build_empty(source: Source) -> nn.Module:
    """Return the source's model on the meta device; raise ModelError if it has too many modules or takes too long."""
    config = copy.deepcopy(source.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    code = {"trust_remote_code": True} if source.options["trust_remote_code"] else {}

    def build() -> nn.Module:
        with torch.device("meta"), warnings.catch_warnings(), _bounded(source.name):
            warnings.simplefilter("ignore")
            model: nn.Module = AutoModelForImageTextToText.from_config(config, **code)
            return model

    model = guarded("architecture", source.name, build)
    if sum(parameter.numel() for parameter in model.parameters()) > _MOST_PARAMETERS:
        raise ModelError(_too_large(source.name, f"{_MOST_PARAMETERS:,} parameters"))
    return model


def count_parts(model: nn.Module) -> tuple[dict[str, int], tuple[int, ...]]:
    """Return a model's parameters by part, and those of each decoder layer; shared parameters are counted once.

    Raises:
        ModelError: the model has no decoder layers to prune (see `layers.find_decoder_layers`).
    """
    path, stack = find_decoder_path(model)
    owners = _owners(model)
    parts = dict.fromkeys(PARTS, 0)
    layers = [0] * len(stack)
    unnamed: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if name.startswith(f"{path}."):
            layers[int(name[len(path) + 1 :].split(".")[0])] += parameter.numel()
            continue
        part = owners.get(id(parameter)) or _beside(name, path)
        if part is None:
            unnamed[_sibling(name, path)[0]] = unnamed.get(_sibling(name, path)[0], 0) + parameter.numel()
        else:
            parts[part] += parameter.numel()
    parts["decoder layers"] = sum(layers)
    for name in sorted(
        unnamed, key=lambda name: -unnamed[name]
    ):  # the largest part is the vision tower of a model where none has a known name
        parts["other" if parts["vision tower"] else "vision tower"] += unnamed[name]
    return parts, tuple(layers)


def _owners(model: nn.Module) -> dict[int, str]:
    """Return the part of the parameters that transformers names: the head, and the embeddings, which take precedence."""
    part_of: dict[int, str] = {}
    for part, getter in (("head", "get_output_embeddings"), ("embeddings", "get_input_embeddings")):
        holder: Any = getattr(model, getter)()
        for parameter in holder.parameters() if isinstance(holder, nn.Module) else ():
            part_of[id(parameter)] = part
    return part_of


def _sibling(name: str, path: str) -> tuple[str, str, bool]:
    """Return the first part of a parameter's name off the path to the decoder, the next part, and whether it is in the decoder."""
    way, steps = path.split("."), name.split(".")
    depth = next((depth for depth, step in enumerate(steps) if depth >= len(way) or step != way[depth]), 0)
    return steps[depth], steps[depth + 1] if depth + 1 < len(steps) else "", depth == len(way) - 1 and depth > 0


def _beside(name: str, path: str) -> str | None:
    step, inner, in_decoder = _sibling(name, path)
    part = next((part for pattern, part in _BESIDE if pattern.search(step)), None)
    if part == "vision tower" and _IN_VISION.search(inner):
        return "projector"
    if part is None and "embed" in step:
        return "embeddings"
    if part is None and (step == "lm_head" or step == "output"):
        return "head"
    return "other" if part is None and in_decoder else part


@contextmanager
def _bounded(name: str) -> Iterator[None]:
    """Raise ModelError while a model is built in this thread, once it has too many modules or takes too long."""
    mine, start, built = threading.get_ident(), time.monotonic(), 0

    def check(*_: Any) -> None:
        nonlocal built
        if threading.get_ident() != mine:
            return
        built += 1
        if built > _MOST_MODULES or time.monotonic() - start > _LONGEST_S:
            raise ModelError(_too_large(name, f"{_MOST_MODULES:,} modules or {_LONGEST_S:.0f} seconds to build"))

    handles = [
        hooks.register_module_module_registration_hook(check),
        hooks.register_module_parameter_registration_hook(check),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _too_large(name: str, bound: str) -> str:
    return (
        f"The configuration of {name!r} cannot be true: expected a model of at most {bound}. "
        "Fix config.json or download the checkpoint again."
    )


def count(number: float) -> str:
    """Return a count of parameters in words.

    >>> count(7.06e9), count(2184032), count(96)
    ('7.1 billion', '2.2 million', '96')
    """
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:,.1f} {word}"
    return f"{number:,.0f}"


def _width(dtype: str) -> int:
    """Return the bytes of one number; unknown types count as float32."""
    return BYTES.get(dtype, 1 if dtype.startswith("float8") else 4)
